/* net.c - see the header. */
#include "cli/net.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/hash.h"

#define OPERATION_MS ((uint64_t)24 * 3600 * 1000)
#define CLOSE_MS 2000

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

static uint64_t or_default(uint64_t v, uint64_t usual) { return v ? v : usual; }

/* ---- what to connect to */

static bool read_url(struct net *net, const struct net_options *o, char *msg, size_t n)
{
    const char *from = "--endpoint-url", *url = o->url;

    if (!url) url = env(from = "S3DLIO_PROXY_URL");
    if (!url) url = env(from = "AWS_ENDPOINT_URL");
    if (!url) url = NET_DEFAULT_URL;
    if (endpoint_parse(str_c(url), &net->conf.endpoint) != ERR_OK) {
        /* not the value itself: it may hold a password */
        snprintf(msg, n, "%s is not a URL like " NET_DEFAULT_URL " (http or https, host, perhaps a port)", from);
        return false;
    }
    const struct endpoint *e = &net->conf.endpoint;
    snprintf(net->url, sizeof net->url, "%s://%s:%u%s", e->https ? "https" : "http", e->host, e->port, e->prefix);
    return true;
}

static bool read_http2(struct net *net, const struct net_options *o, char *msg, size_t n)
{
    static const char *const names[] = {[HTTP2_AUTO] = "auto", [HTTP2_OFF] = "off", [HTTP2_PRIOR_KNOWLEDGE] = "prior-knowledge"};

    net->conf.http2 = HTTP2_AUTO;
    if (!o->http2) return true;
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(o->http2, names[i]) != 0) continue;
        net->conf.http2 = (enum origin_http2)i;
        return true;
    }
    snprintf(msg, n, "--http2 %s: expected auto, off or prior-knowledge", o->http2);
    return false;
}

/* Who says nothing about credentials may have none; who names them must have them. */
static bool read_credentials(struct net *net, const struct net_options *o, char *msg, size_t n)
{
    struct creds_conf *c = &net->conf.creds;
    struct credentials found;

    c->source = CREDS_NONE;
    if (o->no_sign) return true;
    c->source = o->profile ? CREDS_PROFILE : CREDS_AUTO;
    c->profile = o->profile;
    enum err e = creds_load(c, &found, msg, n);
    creds_wipe(&found);
    if (e == ERR_OK) return true;
    if (o->profile || env("AWS_ACCESS_KEY_ID") || env("AWS_SECRET_ACCESS_KEY") || env("AWS_PROFILE")) return false;
    msg[0] = '\0';
    c->source = CREDS_NONE;
    return true;
}

static bool read_options(struct net *net, const struct net_options *o, char *msg, size_t n)
{
    struct origin_conf *c = &net->conf;

    c->name = (char *)(uintptr_t)"proxy";
    c->type = ORIGIN_S3;
    c->region = (char *)(uintptr_t)o->region;
    c->connections_max = or_default(o->connections, NET_CONNECTIONS);
    c->idle_timeout_ms = 15000;
    c->connect_ms = or_default(o->connect_ms, 5000);
    c->tls_ms = 10000;
    c->first_byte_ms = or_default(o->first_byte_ms, 60000);
    c->stall_ms = or_default(o->stall_ms, 60000);
    c->operation_ms = OPERATION_MS;
    c->retry_attempts = o->retries + 1;
    c->retry_base_ms = 100;
    c->retry_cap_ms = 5000;
    c->part_bytes = 8u << 20;
    c->max_in_flight = 16;
    c->tls_verify = !o->insecure;
    c->ca_file = (char *)(uintptr_t)(o->ca_file ? o->ca_file : env("AWS_CA_BUNDLE"));
    return read_url(net, o, msg, n) && read_http2(net, o, msg, n) && read_credentials(net, o, msg, n);
}

/* ---- signals
 *
 * Not libevent's: its handlers restart what they interrupt, and a command that waits for whoever reads its output would not
 * end. These wake the loop, and let a blocked write fail. What a handler needs cannot be but global. */

static volatile sig_atomic_t signal_caught;
static int signal_fd = -1;

static void on_signal(int sig)
{
    static const uint64_t one = 1;
    int saved = errno;

    if (signal_caught) _exit(128 + sig);
    signal_caught = sig;
    if (write(signal_fd, &one, sizeof one) < 0) { /* full: then it is readable, too */
    }
    errno = saved;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct net *net = arg;
    uint64_t n;

    (void)what;
    if (read(fd, &n, sizeof n) < 0 || net->interrupted) return;
    net->interrupted = true;
    if (net->on_interrupt) net->on_interrupt(net->interrupt_arg);
    loop_stop(net->loop);
}

static void set_handlers(void (*fn)(int))
{
    struct sigaction a = {.sa_handler = fn};

    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

static bool watch_signals(struct net *net)
{
    signal(SIGPIPE, SIG_IGN);
    signal_caught = 0;
    signal_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (signal_fd < 0) return false;
    net->wake = event_new(loop_base(net->loop), signal_fd, EV_READ | EV_PERSIST, on_wake, net);
    if (!net->wake || event_add(net->wake, NULL) != 0) return false;
    set_handlers(on_signal);
    return true;
}

/* From here on a signal ends the process. */
static void unwatch_signals(struct net *net)
{
    if (signal_fd < 0) return;
    set_handlers(SIG_DFL);
    if (net->wake) event_free(net->wake);
    close(signal_fd);
    net->wake = NULL;
    signal_fd = -1;
}

bool net_interrupted(const struct net *net) { return net->interrupted || (net->loop && signal_caught); }

/* ---- life */

bool net_open(struct net *net, const struct net_options *o, char *msg, size_t n)
{
    enum err e;

    memset(net, 0, sizeof *net);
    msg[0] = '\0';
    if (!read_options(net, o, msg, n)) return false;
    retry_budget_init(&net->budget);
    e = hash_init();
    if (e == ERR_OK) e = loop_create(&net->loop);
    if (e == ERR_OK) e = mailbox_create(net->loop, &net->mailbox);
    if (e == ERR_OK) e = origin_create(&net->conf, 1, NULL, &net->origin, msg, n);
    if (e == ERR_OK) e = origin_worker_create(net->origin, 0, net->mailbox, &net->worker);
    if (e == ERR_OK && !watch_signals(net)) e = ERR_NOMEM;
    if (e == ERR_OK) return true;
    if (!msg[0]) snprintf(msg, n, "%s", err_text(e));
    net_close(net);
    return false;
}

static void worker_closed(void *arg)
{
    struct net *net = arg;
    net->closed = true;
    loop_stop(net->loop);
}

static void close_late(struct timer *t) { loop_stop(t->loop); }

void net_close(struct net *net)
{
    struct timer late;

    if (!net->loop) return;
    unwatch_signals(net);
    if (net->worker) {
        origin_worker_destroy(net->worker, worker_closed, net);
        timer_init(&late, net->loop, close_late);
        if (!net->closed) timer_set(&late, CLOSE_MS);
        if (!net->closed) loop_run(net->loop);
        timer_stop(&late);
        /* A resolver that hangs is not waited for: the process is about to end. */
        if (!net->closed) return;
    }
    origin_destroy(net->origin);
    if (net->mailbox) mailbox_destroy(net->mailbox);
    loop_destroy(net->loop);
    memset(net, 0, sizeof *net);
}

bool net_run(struct net *net)
{
    if (!net->interrupted) loop_run(net->loop);
    return !net->interrupted;
}

void net_stop(struct net *net) { loop_stop(net->loop); }
