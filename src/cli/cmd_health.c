/* cmd_health.c - is the proxy there, and can it serve? */
#include <jansson.h>
#include <string.h>

#include "cli/admin.h"
#include "cli/commands.h"

static int run_health(struct cli *cli, const void *opts, int nargs, char **args)
{
    json_t *answer;
    int code;

    (void)opts;
    (void)nargs;
    (void)args;
    code = admin_ask_json(cli, METHOD_GET, "ready", (struct str){NULL, 0}, NULL, &answer);
    const char *status = json_string_value(json_object_get(answer, "status"));
    if (code == EXIT_OK && (!status || strcmp(status, "ready") != 0)) code = admin_not_understood(cli, "ready");
    json_decref(answer);
    if (cli->json) cli_print_json(json_pack("{sbss}", "ready", code == EXIT_OK, "url", cli->net.url));
    else if (code == EXIT_OK && !cli->quiet) printf("%s is ready\n", cli->net.url);
    return code == EXIT_NOT_THERE ? EXIT_FAILED : code;
}

const struct command command_health = {
    .name = "health",
    .args = "",
    .summary = "Ask whether the proxy is up and can reach its origins",
    .details = "Exit status 0: it is ready to serve. 1: it is starting, draining, without a usable origin, or cannot be reached.\n"
               "Give --retries 0 --timeout 3s for a probe that does not wait.\n",
    .max_args = 0,
    .run = run_health,
};
