/* options.c - the command line, read by the tables. See cli.h.
 *
 * Options may stand anywhere before "--"; those of a command only after its name. Values: "-j8", "-j 8", "--jobs 8",
 * "--jobs=8"; flags of one letter may stand together. Every option may be given once. */
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "cli/cli.h"
#include "version.h"

#define OPTS_MAX 64u /* in one table */

const struct opt cli_global_opts[] = {
    {0, "endpoint-url", OPT_TEXT, "URL", offsetof(struct cli, net_options.url), 0, 0,
     "the proxy (default S3DLIO_PROXY_URL, AWS_ENDPOINT_URL, " NET_DEFAULT_URL ")"},
    {0, "region", OPT_TEXT, "NAME", offsetof(struct cli, net_options.region), 0, 0, "region to sign for"},
    {0, "profile", OPT_TEXT, "NAME", offsetof(struct cli, net_options.profile), 0, 0, "profile of the AWS configuration files"},
    {0, "no-sign", OPT_FLAG, NULL, offsetof(struct cli, net_options.no_sign), 0, 0, "do not sign requests"},
    {0, "ca-file", OPT_TEXT, "FILE", offsetof(struct cli, net_options.ca_file), 0, 0,
     "certificates to trust (PEM; default AWS_CA_BUNDLE, the system's)"},
    {0, "insecure", OPT_FLAG, NULL, offsetof(struct cli, net_options.insecure), 0, 0, "do not check the proxy's certificate"},
    {0, "http2", OPT_TEXT, "auto|off|prior-knowledge", offsetof(struct cli, net_options.http2), 0, 0,
     "HTTP/2: auto (default) where TLS offers it"},
    {0, "connections", OPT_UINT, "N", offsetof(struct cli, net_options.connections), 1, 1024, "connections at most (default 64)"},
    {0, "connect-timeout", OPT_DURATION, "TIME", offsetof(struct cli, net_options.connect_ms), 1, 0, "default 5s"},
    {0, "timeout", OPT_DURATION, "TIME", offsetof(struct cli, net_options.first_byte_ms), 1, 0, "for a response to begin (default 60s)"},
    {0, "stall-timeout", OPT_DURATION, "TIME", offsetof(struct cli, net_options.stall_ms), 1, 0,
     "for a response to go on (default 60s)"},
    {0, "retries", OPT_UINT, "N", offsetof(struct cli, net_options.retries), 0, 100, "further tries of a request (default 4)"},
    {0, "admin-path", OPT_TEXT, "PATH", offsetof(struct cli, admin_path), 0, 0, "of the proxy's admin route (default /_s3dlio/)"},
    {0, "json", OPT_FLAG, NULL, offsetof(struct cli, json), 0, 0, "print JSON"},
    {0, "progress", OPT_TEXT, "auto|bar|plain|none", offsetof(struct cli, progress), 0, 0,
     "auto (default): a bar on a terminal, else none"},
    {'q', "quiet", OPT_FLAG, NULL, offsetof(struct cli, quiet), 0, 0, "say nothing but errors"},
    {'v', "verbose", OPT_FLAG, NULL, offsetof(struct cli, verbose), 0, 0, "say what the connections do"},
    {0, "op-log", OPT_TEXT, "FILE", offsetof(struct cli, oplog_file), 0, 0,
     "write every operation to FILE.tsv.zst in the columns of s3dlio and warp"},
    {.name = NULL},
};

/* ---- help */

static void help_opts(FILE *f, const struct opt *o)
{
    for (; o && o->name; o++) {
        char left[64];
        int n = o->letter ? snprintf(left, sizeof left, "-%c, --%s", o->letter, o->name)
                          : snprintf(left, sizeof left, "    --%s", o->name);
        if (o->arg) snprintf(left + n, sizeof left - (size_t)n, " %s", o->arg);
        fprintf(f, strlen(left) <= 28 ? "  %-28s %s\n" : "  %s\n                               %s\n", left, o->help);
    }
}

void cli_help(FILE *f)
{
    fprintf(f, "Usage: " CLI_NAME " [OPTION]... COMMAND [OPTION]... [ARGUMENT]...\n"
               "       " CLI_NAME " COMMAND --help | --version | --help\n\nCommands:\n");
    for (const struct command *const *c = cli_commands; *c; c++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s%s", (*c)->name, (*c)->alias ? ", " : "", (*c)->alias ? (*c)->alias : "");
        fprintf(f, "  %-20s %s\n", name, (*c)->summary);
    }
    fprintf(f, "\nOptions of every command:\n");
    help_opts(f, cli_global_opts);
    fprintf(f, "\nExit status: 0 done; 1 something failed; 2 wrong usage; 3 what was named does not exist; 130 interrupted.\n");
}

void cli_help_command(FILE *f, const struct command *c)
{
    fprintf(f, "Usage: " CLI_NAME " %s [OPTION]...%s%s\n\n%s.\n", c->name, *c->args ? " " : "", c->args, c->summary);
    if (c->alias) fprintf(f, "Also called %s.\n", c->alias);
    if (c->details) fprintf(f, "\n%s", c->details);
    if (c->opts && c->opts->name) fprintf(f, "\nOptions:\n");
    help_opts(f, c->opts);
    fprintf(f, "\nOptions of every command:\n");
    help_opts(f, cli_global_opts);
}

/* ---- reading */

struct parsing {
    struct cli *cli;
    void *opts;
    bool seen_global[OPTS_MAX], seen[OPTS_MAX];
};

static const struct opt *find_long(const struct opt *o, struct str name)
{
    for (; o && o->name; o++)
        if (str_eq(str_c(o->name), name)) return o;
    return NULL;
}

static const struct opt *find_letter(const struct opt *o, char letter)
{
    for (; o && o->name; o++)
        if (o->letter == letter) return o;
    return NULL;
}

static bool bad_value(const struct opt *o, const char *value, const char *expected)
{
    if (o->max) cli_error("--%s %s: expected %s from %llu to %llu", o->name, value, expected, (unsigned long long)o->min,
                          (unsigned long long)o->max);
    else if (o->min) cli_error("--%s %s: expected %s of at least %llu", o->name, value, expected, (unsigned long long)o->min);
    else cli_error("--%s %s: expected %s", o->name, value, expected);
    return false;
}

static bool read_number(const struct opt *o, const char *value, uint64_t *out)
{
    static const char *const expected[] = {
        [OPT_UINT] = "a number", [OPT_SIZE] = "a size such as 8MiB,", [OPT_DURATION] = "a time such as 250ms or 15s,"};
    struct str text = str_c(value);
    bool good = o->type == OPT_UINT   ? str_to_u64(text, out)
                : o->type == OPT_SIZE ? units_parse_size(text, out) == ERR_OK
                                      : units_parse_duration(text, out) == ERR_OK;

    if (good && *out >= o->min && (o->max == 0 || *out <= o->max)) return true;
    return bad_value(o, value, expected[o->type]);
}

static bool set_option(struct parsing *p, const struct opt *o, bool global, const char *value)
{
    const struct opt *table = global ? cli_global_opts : p->cli->command->opts;
    char *field = (global ? (char *)p->cli : (char *)p->opts) + o->offset;
    CHECK((size_t)(o - table) < OPTS_MAX);
    bool *seen = &(global ? p->seen_global : p->seen)[o - table];

    if (*seen) {
        cli_error("--%s is given twice", o->name);
        return false;
    }
    *seen = true;
    switch (o->type) {
    case OPT_FLAG: *(bool *)(void *)field = true; return true;
    case OPT_TEXT: *(const char **)(void *)field = value; return true;
    default: return read_number(o, value, (uint64_t *)(void *)field);
    }
}

static bool is_help(const char *arg) { return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0; }

static const struct opt *find_option(const struct parsing *p, struct str name, bool is_long, bool *global)
{
    const struct command *c = p->cli->command;
    const struct opt *o = !c ? NULL : is_long ? find_long(c->opts, name) : find_letter(c->opts, name.p[0]);

    *global = !o;
    return o ? o : is_long ? find_long(cli_global_opts, name) : find_letter(cli_global_opts, name.p[0]);
}

static bool unknown_option(const struct parsing *p, struct str name, bool is_long)
{
    const struct command *c = p->cli->command;

    cli_error("unknown option %s" STR_FMT "%s%s (see " CLI_NAME "%s%s --help)", is_long ? "--" : "-", STR_ARG(name), c ? " of " : "",
              c ? c->name : "", c ? " " : "", c ? c->name : "");
    return false;
}

/* value NULL: it is the next argument. */
static bool read_value(struct parsing *p, const struct opt *o, bool global, const char *value, int argc, char **argv, int *i)
{
    if (!value && *i + 1 < argc) value = argv[++*i];
    if (value) return set_option(p, o, global, value);
    cli_error("--%s needs a value: %s", o->name, o->arg);
    return false;
}

static bool read_long(struct parsing *p, int argc, char **argv, int *i)
{
    const char *text = argv[*i] + 2;
    size_t n = str_find(str_c(text), '=');
    const char *value = text[n] ? text + n + 1 : NULL;
    bool global;
    const struct opt *o = find_option(p, str_make(text, n), true, &global);

    if (!o) return unknown_option(p, str_make(text, n), true);
    if (o->type != OPT_FLAG) return read_value(p, o, global, value, argc, argv, i);
    if (!value) return set_option(p, o, global, NULL);
    cli_error("--%s takes no value", o->name);
    return false;
}

/* "-rn", "-j8", "-rj8", "-rj 8". */
static bool read_letters(struct parsing *p, int argc, char **argv, int *i)
{
    bool global;

    for (const char *at = argv[*i] + 1; *at; at++) {
        const struct opt *o = find_option(p, str_make(at, 1), false, &global);
        if (!o) return unknown_option(p, str_make(at, 1), false);
        if (o->type != OPT_FLAG) return read_value(p, o, global, at[1] ? at + 1 : NULL, argc, argv, i);
        if (!set_option(p, o, global, NULL)) return false;
    }
    return true;
}

/* One argument that begins with '-'; *i moves on over a value that stands by itself. */
static bool read_option(struct parsing *p, int argc, char **argv, int *i)
{
    return argv[*i][1] == '-' ? read_long(p, argc, argv, i) : read_letters(p, argc, argv, i);
}

static const struct command *find_command(const char *name)
{
    for (const struct command *const *c = cli_commands; *c; c++)
        if (strcmp((*c)->name, name) == 0 || ((*c)->alias && strcmp((*c)->alias, name) == 0)) return *c;
    return NULL;
}

static bool take_command(struct parsing *p, const char *name)
{
    const struct command *c = find_command(name);

    if (!c) {
        cli_error("unknown command '%s' (" CLI_NAME " --help lists them)", name);
        return false;
    }
    p->cli->command = c;
    p->opts = calloc(1, c->opts_bytes ? c->opts_bytes : 1);
    if (!p->opts) cli_error("%s", err_text(ERR_NOMEM));
    else if (c->defaults) c->defaults(p->opts);
    return p->opts != NULL;
}

static bool check_args(const struct command *c, int n)
{
    if (n >= c->min_args && (c->max_args < 0 || n <= c->max_args)) return true;
    cli_error("%s: too %s arguments; usage: " CLI_NAME " %s [OPTION]... %s", c->name, n < c->min_args ? "few" : "many", c->name,
              c->args);
    return false;
}

static bool read_progress(struct cli *cli)
{
    static const char *const names[] = {"auto", "bar", "plain", "none"};

    for (unsigned i = 0; cli->progress && i < ARRAY_LEN(names); i++) {
        if (strcmp(cli->progress, names[i]) != 0) continue;
        cli->progress_mode = (enum progress_mode)i;
        return true;
    }
    if (cli->progress) cli_error("--progress %s: expected auto, bar, plain or none", cli->progress);
    return !cli->progress;
}

static int parse(struct parsing *p, int argc, char **argv, int *nargs)
{
    bool ended = false;

    for (int i = 1; i < argc; i++) {
        bool is_option = !ended && argv[i][0] == '-' && argv[i][1];
        if (is_option && strcmp(argv[i], "--") == 0) {
            ended = true;
        } else if (is_option && is_help(argv[i])) {
            if (p->cli->command) cli_help_command(stdout, p->cli->command);
            else cli_help(stdout);
            return cli_flush(EXIT_OK);
        } else if (is_option && !p->cli->command && strcmp(argv[i], "--help=man") == 0) {
            cli_help_man(stdout);
            return cli_flush(EXIT_OK);
        } else if (is_option && !p->cli->command && (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0)) {
            printf(CLI_NAME " " S3P_VERSION "\n");
            return cli_flush(EXIT_OK);
        } else if (is_option) {
            if (!read_option(p, argc, argv, &i)) return EXIT_USAGE;
        } else if (!p->cli->command) {
            if (!take_command(p, argv[i])) return EXIT_USAGE;
        } else {
            argv[(*nargs)++] = argv[i]; /* never beyond i: operands move to the front */
        }
    }
    if (!p->cli->command) {
        cli_help(stderr);
        return EXIT_USAGE;
    }
    return check_args(p->cli->command, *nargs) && read_progress(p->cli) ? -1 : EXIT_USAGE;
}

/* ---- lines that are still being typed */

const struct opt *cli_find_option(const struct command *c, struct str name)
{
    const struct opt *own = c ? find_long(c->opts, name) : NULL;
    return own ? own : find_long(cli_global_opts, name);
}

static void scan_set(struct cli *cli, const struct opt *o, const char *value)
{
    if (find_long(cli_global_opts, str_c(o->name)) != o) return;
    char *field = (char *)cli + o->offset;
    if (o->type == OPT_FLAG) *(bool *)(void *)field = true;
    else if (o->type == OPT_TEXT && value) *(const char **)(void *)field = value;
}

/* One word that begins with '-'; next: the one behind it, NULL: the one under the cursor. True: next is its value. */
static bool scan_option(struct cli *cli, const char *word, const char *next, struct cli_scanned *out)
{
    struct parsing p = {.cli = cli};
    size_t n = str_find(str_c(word), '=');
    bool global, is_long = word[1] == '-';
    const struct opt *o = NULL;

    p.cli->command = out->command;
    if (is_long) o = cli_find_option(out->command, str_make(word + 2, n - 2));
    for (const char *c = word + 1; !is_long && *c; c++) {
        o = find_option(&p, str_make(c, 1), false, &global);
        if (o && o->type == OPT_FLAG) scan_set(cli, o, NULL);
        else if (o && c[1]) return scan_set(cli, o, c + 1), false;
    }
    if (!o || o->type == OPT_FLAG || word[n]) {
        if (o) scan_set(cli, o, word[n] ? word + n + 1 : NULL);
        return false;
    }
    if (next) scan_set(cli, o, next);
    else out->wants = o;
    return true;
}

void cli_scan(struct cli *cli, int n, char **words, struct cli_scanned *out)
{
    const struct command *saved = cli->command;

    *out = (struct cli_scanned){0};
    for (int i = 1; i + 1 < n; i++) {
        if (!out->ended && strcmp(words[i], "--") == 0) out->ended = true;
        else if (!out->ended && words[i][0] == '-' && words[i][1]) i += scan_option(cli, words[i], i + 2 < n ? words[i + 1] : NULL, out);
        else if (!out->command) out->command = find_command(words[i]);
        else out->operands++;
    }
    cli->command = saved;
}

int cli_parse(struct cli *cli, int argc, char **argv, void **opts, int *nargs, char ***args)
{
    struct parsing p = {.cli = cli};

    cli->net_options.retries = 4;
    *nargs = 0;
    int code = parse(&p, argc, argv, nargs);
    *args = argv;
    *opts = p.opts;
    if (!cli->admin_path) cli->admin_path = "/_s3dlio/";
    return code;
}
