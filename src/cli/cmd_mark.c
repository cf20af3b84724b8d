/* cmd_mark.c - names this moment in the proxy's statistics, so that `stats --since` can tell what happened after it. */
#include <jansson.h>
#include <string.h>

#include "cli/admin.h"
#include "cli/commands.h"

#define LABEL_MAX 64u /* as in marks.c */

static int mark_set(struct cli *cli, const char *label)
{
    size_t n = strlen(label);
    json_t *answer;

    for (size_t i = 0; i < n; i++)
        if (label[i] < ' ' || label[i] > '~') n = 0;
    if (n == 0 || n > LABEL_MAX) {
        cli_error("mark: expected a label of 1 to %u printable ASCII characters", LABEL_MAX);
        return EXIT_USAGE;
    }
    int code = admin_post_json(cli, "mark", json_pack("{ss}", "label", label), &answer);
    if (code != EXIT_OK) return code;
    const char *at = json_string_value(json_object_get(answer, "at"));
    if (!at) code = admin_not_understood(cli, "mark");
    else if (cli->json) cli_print_json(json_incref(answer));
    else if (!cli->quiet) printf("%s  %s\n", at, label);
    json_decref(answer);
    return code;
}

static int marks_list(struct cli *cli)
{
    json_t *answer, *mark;
    size_t i;
    int code = admin_ask_json(cli, METHOD_GET, "mark", (struct str){NULL, 0}, NULL, &answer);

    if (code != EXIT_OK) return code;
    const json_t *marks = json_object_get(answer, "marks");
    if (!json_is_array(marks)) code = admin_not_understood(cli, "mark");
    else if (cli->json) cli_print_json(json_incref(answer));
    else json_array_foreach(marks, i, mark)
    {
        const char *at = json_string_value(json_object_get(mark, "at")), *label = json_string_value(json_object_get(mark, "label"));
        printf("%s  %s\n", at ? at : "?", label ? label : "?");
    }
    json_decref(answer);
    return code;
}

static int run_mark(struct cli *cli, const void *opts, int nargs, char **args)
{
    (void)opts;
    return nargs ? mark_set(cli, args[0]) : marks_list(cli);
}

const struct command command_mark = {
    .name = "mark",
    .args = "[LABEL]",
    .summary = "Name this moment in the proxy's statistics, or list the names there are",
    .details = "`stats --since LABEL` tells what happened since. A label that is set again is moved; the proxy keeps the latest\n"
               "(limits.marks) until it ends. With --json one document: label and at; of the list: marks.\n",
    .max_args = 1,
    .run = run_mark,
};
