/* main.c (cli) - s3dlio-cli: the table of commands, and what happens around one. */
#include <stdlib.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/commands.h"

const struct command *const cli_commands[] = {
#define X(name) &command_##name,
    COMMAND_TABLE(X)
#undef X
    NULL,
};

static int run(struct cli *cli, const void *opts, int nargs, char **args)
{
    char msg[512];

    if (log_open(cli->verbose ? "stderr" : "off", cli->verbose ? LOG_DEBUG : LOG_ERROR) != ERR_OK) return EXIT_FAILED;
    if (!cli->command->offline && !net_open(&cli->net, &cli->net_options, msg, sizeof msg)) {
        cli_error("%s", msg);
        return EXIT_USAGE;
    }
    int code = cli->command->run(cli, opts, nargs, args);
    if (cli->net.interrupted && code != EXIT_OK) code = EXIT_INTERRUPTED;
    if (!cli->command->offline) net_close(&cli->net);
    log_close();
    return cli_flush(code);
}

int main(int argc, char **argv)
{
    struct cli cli = {0};
    void *opts = NULL;
    char **args;
    int nargs, code = cli_parse(&cli, argc, argv, &opts, &nargs, &args);

    if (code < 0) code = run(&cli, opts, nargs, args);
    free(opts);
    return code;
}
