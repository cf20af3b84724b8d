/* main.c - arguments, start, signals. Exit codes: 0 clean end, 1 could not start or run, 2 bad usage or configuration. */
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/hash.h"
#include "proxy/front.h"
#include "version.h"

#define DEFAULT_CONF SYSCONFDIR "/" PROXY_NAME "/" PROXY_NAME ".yaml"

static void usage(FILE *f)
{
    fprintf(f,
            "Usage: " PROXY_NAME " [-c FILE] [--test | --dump]\n"
            "       " PROXY_NAME " --help-config[=markdown] | --version | --help\n\n"
            "  -c, --config FILE   configuration (default " DEFAULT_CONF "; - is standard input)\n"
            "  -t, --test          check the configuration and exit\n"
            "      --dump          print the effective configuration, secrets masked, and exit\n"
            "      --help-config   describe every directive (=markdown: as Markdown)\n"
            "  -V, --version       print the version\n"
            "  -h, --help          print this\n\n"
            "Signals: TERM, INT drain and exit (a second one exits at once); USR1 reopens the log files; HUP does\n"
            "so too and reads the certificates again.\n");
}

struct options {
    const char *conf;
    bool test, dump;
};

/* Returns -1 to go on, else the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {{"config", required_argument, NULL, 'c'}, {"test", no_argument, NULL, 't'},
                                          {"dump", no_argument, NULL, 'd'},         {"help-config", optional_argument, NULL, 'H'},
                                          {"version", no_argument, NULL, 'V'},      {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int c;

    while ((c = getopt_long(argc, argv, "c:tVh", longs, NULL)) != -1) switch (c) {
        case 'c': o->conf = optarg; break;
        case 't': o->test = true; break;
        case 'd': o->dump = true; break;
        case 'H':
            if (optarg && strcmp(optarg, "markdown") != 0) {
                fprintf(stderr, PROXY_NAME ": --help-config=%s: expected markdown or nothing\n", optarg);
                return 2;
            }
            (optarg ? conf_print_reference : conf_print_help)(stdout);
            return 0;
        case 'V': printf(PROXY_NAME " " S3P_VERSION "\n"); return 0;
        case 'h': usage(stdout); return 0;
        default: usage(stderr); return 2;
        }
    if (optind < argc) {
        fprintf(stderr, PROXY_NAME ": unexpected argument: %s\n", argv[optind]);
        return 2;
    }
    return -1;
}

/* Every connection is a descriptor: use what we may. */
static void raise_descriptor_limit(void)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) != 0 || rl.rlim_cur == rl.rlim_max) return;
    rl.rlim_cur = rl.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &rl) != 0) log_warn("cannot raise the descriptor limit");
}

/* Waits for signals until it is time to end. */
static void wait_for_signals(struct proxy *p, const sigset_t *set)
{
    bool draining = false;
    int sig;

    for (;;) {
        if (sigwait(set, &sig) != 0) continue;
        switch (sig) {
        case SIGUSR1:
        case SIGHUP:
            log_reopen();
            modules_reopen(p->modules);
            if (sig == SIGHUP) front_tls_reload(p->tls, conf_listens(p->conf));
            log_info(sig == SIGHUP ? "log files reopened, certificates read again" : "log files reopened");
            break;
        case SIGUSR2: /* from the joiner: all workers have ended */
            if (atomic_load(&p->joined)) return;
            break;
        default:
            if (draining) _exit(1);
            draining = true;
            log_info("signal %d: draining", sig);
            proxy_drain(p);
        }
    }
}

static void *joiner_main(void *arg)
{
    struct proxy *p = arg;
    proxy_join(p);
    atomic_store(&p->joined, true);
    kill(getpid(), SIGUSR2);
    return NULL;
}

static int run(struct conf *c)
{
    char msg[1024] = "";
    struct proxy *p = NULL;
    struct system_facts system;
    sigset_t set;
    pthread_t joiner;

    sigemptyset(&set);
    int sigs[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGUSR2};
    for (size_t i = 0; i < ARRAY_LEN(sigs); i++) sigaddset(&set, sigs[i]);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    system_look("", &system);
    enum err e = hash_init();
    if (e == ERR_OK) e = log_start_writer();
    if (e == ERR_OK) e = proxy_create(c, &p, msg, sizeof msg);
    if (e == ERR_OK) {
        p->system = system;
        system_log(&system, c->workers);
    }
    if (e == ERR_OK) e = proxy_start(p, msg, sizeof msg);
    if (e != ERR_OK) {
        fprintf(stderr, PROXY_NAME ": %s\n", msg[0] ? msg : err_text(e));
        if (p && atomic_load(&p->ready) == false && p->workers && p->workers[0].started) _exit(1);
        proxy_destroy(p);
        log_close();
        return 1;
    }
    for (unsigned i = 0; i < c->nservers; i++)
        for (unsigned k = 0; k < c->servers[i].nlistens; k++) log_info("listening on %s", c->servers[i].listens[k].text);
    if (pthread_create(&joiner, NULL, joiner_main, p) != 0) {
        fprintf(stderr, PROXY_NAME ": cannot start a thread\n");
        _exit(1);
    }
    wait_for_signals(p, &set);
    pthread_join(joiner, NULL);
    proxy_destroy(p);
    log_close();
    return 0;
}

static int dump(const struct conf *c)
{
    char *text = conf_dump(c);
    bool ok = text && fputs(text, stdout) >= 0 && fflush(stdout) == 0;

    free(text);
    if (!ok) fprintf(stderr, PROXY_NAME ": cannot print the configuration\n");
    return ok ? 0 : 1;
}

/* --test: what the start would read besides the configuration. */
static int test(const struct conf *c, const char *name)
{
    char msg[512] = "";
    struct listen_tls **tls;
    enum err e = front_tls_create(c, &tls, msg, sizeof msg);

    front_tls_destroy(tls, conf_listens(c));
    if (e != ERR_OK) {
        fprintf(stderr, PROXY_NAME ": %s\n", msg[0] ? msg : err_text(e));
        return 1;
    }
    printf(PROXY_NAME ": %s: configuration is good\n", name);
    return 0;
}

int main(int argc, char **argv)
{
    struct options o = {.conf = DEFAULT_CONF};
    struct conf *c = NULL;
    int rc = parse_options(argc, argv, &o);

    if (rc >= 0) return rc;
    if (conf_load(o.conf, stderr, &c) != ERR_OK) return 2;
    if (!proxy_check_conf(c, stderr)) {
        rc = 2;
    } else if (o.dump) {
        rc = dump(c);
    } else if (o.test) {
        rc = test(c, o.conf);
    } else if (log_open(c->log_file, c->log_level) != ERR_OK) {
        fprintf(stderr, PROXY_NAME ": cannot open log file %s: %m\n", c->log_file);
        rc = 1;
    } else {
        rc = run(c);
    }
    conf_unref(c);
    return rc < 0 ? 0 : rc;
}
