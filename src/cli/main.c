/* main.c (cli) - s3dlio-cli: the table of commands, and what happens around one. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/oplog.h"

const struct command *const cli_commands[] = {
#define X(name) &command_##name,
    COMMAND_TABLE(X)
#undef X
    NULL,
};

/* What the command line asks for beside the command itself. False: what is wrong has been said. */
static bool begin(struct cli *cli, const void *opts)
{
    char msg[512];

    if (cli->command->offline) return true;
    if (cli->command->adjust) cli->command->adjust(cli, opts);
    if (!net_open(&cli->net, &cli->net_options, msg, sizeof msg)) {
        cli_error("%s", msg);
        return false;
    }
    if (!cli->oplog_file || oplog_open(cli->oplog_file, cli->net.url, NULL, &cli->oplog, msg, sizeof msg)) {
        cli->net.oplog = cli->oplog;
        return true;
    }
    cli_error("--op-log: %s", msg);
    net_close(&cli->net);
    return false;
}

/* A log that is not whole is a failure of a command that did all it should. */
static int end(struct cli *cli, int code)
{
    char msg[512];

    if (cli->command->offline) return code;
    if (net_interrupted(&cli->net) && (code != EXIT_OK || ferror(stdout))) code = EXIT_INTERRUPTED;
    if (!oplog_close(cli->oplog, msg, sizeof msg)) {
        cli_error("--op-log: %s", msg);
        if (code == EXIT_OK) code = EXIT_FAILED;
    }
    cli->oplog = cli->net.oplog = NULL;
    net_close(&cli->net);
    return code;
}

static int run(struct cli *cli, const void *opts, int nargs, char **args)
{
    if (log_open(cli->verbose ? "stderr" : "off", cli->verbose ? LOG_DEBUG : LOG_ERROR) != ERR_OK) return EXIT_FAILED;
    if (!begin(cli, opts)) {
        log_close();
        return EXIT_USAGE;
    }
    int code = end(cli, cli->command->run(cli, opts, nargs, args));
    log_close();
    return cli_flush(code);
}

/* Where one of the three is closed the next file or socket that is opened would take its place, and get what is printed.
 * What stands there instead gives and takes nothing. */
static void keep_places(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/", O_RDONLY | O_DIRECTORY) < 0) _exit(EXIT_FAILED);
}

/* --jobs and --concurrency go to 1024, which is the usual limit of descriptors; what may be had without asking is more. */
static void raise_descriptors(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) != 0) return;
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
}

int main(int argc, char **argv)
{
    struct cli cli = {0};
    void *opts = NULL;
    char **args;
    int nargs, code;

    keep_places();
    raise_descriptors();
    code = cli_parse(&cli, argc, argv, &opts, &nargs, &args);
    if (code < 0) code = run(&cli, opts, nargs, args);
    free(opts);
    /* what nobody takes from standard output is not waited for */
    if (code == EXIT_INTERRUPTED && ferror(stdout)) _exit(code);
    return code;
}
