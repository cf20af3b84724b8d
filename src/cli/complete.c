/* complete.c - see the header. Options and commands come from the tables, buckets and keys from the proxy, which is given
 * little time: who types does not wait. */
#include "cli/complete.h"

#include <stdlib.h>
#include <string.h>

#include "cli/lister.h"
#include "s3/listing.h"

#define CANDIDATES_MAX 500u
#define BUCKETS_BYTES ((size_t)16 << 20)

/* A candidate; one with a line end or another control character could not be typed. */
static void offer(struct str s, const char *description)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f) return;
    printf(STR_FMT "%s%s\n", STR_ARG(s), description ? "\t" : "", description ? description : "");
}

static void offer_if(struct str typed, const char *text, const char *description)
{
    if (str_starts(str_c(text), typed)) offer(str_c(text), description);
}

/* ---- buckets and keys */

struct offering {
    const char *typed, *lead; /* lead: what stands before the value, "--prefix=" */
    const char *end;
};

static void offer_uri(const struct offering *w, struct str bucket, struct str key, const char *end)
{
    struct strbuf b;

    strbuf_init(&b, 0);
    strbuf_f(&b, "%ss3://" STR_FMT "%s", w->lead, STR_ARG(bucket), key.n ? "/" : "");
    strbuf_str(&b, key);
    strbuf_z(&b, end);
    if (!b.failed) offer(strbuf_get(&b), NULL);
    strbuf_free(&b);
}

static bool offer_bucket(void *arg, struct str name, struct str created)
{
    const struct offering *w = arg;

    (void)created;
    if (str_starts(name, str_c(w->typed + 5))) offer_uri(w, name, STR_LIT(""), w->end);
    return true;
}

static void offer_buckets(struct cli *cli, struct offering *w)
{
    struct strbuf body;
    struct call_request q = {.method = METHOD_GET};
    struct call_sync s = {.body = &body};
    struct call_result r;

    strbuf_init(&body, BUCKETS_BYTES);
    call_wait(&cli->net, &q, &s, &r);
    if (r.err == ERR_OK) listing_buckets(strbuf_get(&body), offer_bucket, w);
    strbuf_free(&body);
}

static void offer_keys(struct cli *cli, const struct offering *w, const struct place *p)
{
    struct lister *l;
    struct listed *e;

    if (lister_open(&cli->net, p->bucket, p->key, STR_LIT("/"), CANDIDATES_MAX, NULL, NULL, &l) != ERR_OK) return;
    for (unsigned n = 0; n < CANDIDATES_MAX && lister_wait(l, &e) == ERR_OK; n++) {
        if (e->key.n) offer_uri(w, p->bucket, e->key, "");
        free(e);
    }
    lister_close(l);
}

/* buckets_only: a key is not wanted. */
static void offer_remote(struct cli *cli, const char *typed, const char *lead, bool buckets_only)
{
    struct offering w = {.typed = typed, .lead = lead, .end = buckets_only ? "" : "/"};
    char msg[256];
    struct place p;

    if (!place_is_remote(typed)) {
        if (strncmp("s3://", typed, strlen(typed)) == 0) printf("%ss3://\n", lead);
        return;
    }
    if (place_parse(typed, &p) != ERR_OK) return;
    cli->net_options.connect_ms = 1000;
    cli->net_options.first_byte_ms = cli->net_options.stall_ms = 2000;
    cli->net_options.retries = 0;
    if (!net_open(&cli->net, &cli->net_options, msg, sizeof msg)) return;
    bool names_bucket = strchr(typed + 5, '/') == NULL;
    if (names_bucket) offer_buckets(cli, &w);
    else if (!buckets_only) offer_keys(cli, &w, &p);
    net_close(&cli->net);
}

/* ---- what the tables know */

static void offer_options(struct str typed, const struct opt *o)
{
    char text[80];

    for (; o && o->name; o++) {
        snprintf(text, sizeof text, "--%s", o->name);
        offer_if(typed, text, o->help);
    }
}

/* "get|put|mixed" of "get|put|mixed s3://BUCKET/PREFIX": words to choose from stand in small letters; else nothing. */
static struct str choices_of(const char *what)
{
    size_t n = strspn(what, "abcdefghijklmnopqrstuvwxyz-|");
    return memchr(what, '|', n) && (!what[n] || what[n] == ' ') ? str_make(what, n) : STR_LIT("");
}

static void offer_choices(const char *typed, const char *lead, struct str rest)
{
    struct str one;
    char text[160];

    while (str_split(&rest, '|', &one)) {
        if (!str_starts(one, str_c(typed))) continue;
        snprintf(text, sizeof text, "%s" STR_FMT, lead, STR_ARG(one));
        offer(str_c(text), NULL);
    }
}

static bool names_any(const char *args, const char *const *words)
{
    for (; *words; words++)
        if (strstr(args, *words)) return true;
    return false;
}

/* What can be the value of an option, or an operand: told by the words of the help. */
static const char *offer_values(struct cli *cli, const char *what, const char *typed, const char *lead)
{
    static const char *const remote[] = {"s3://", "BUCKET", "URI", "PREFIX", "SOURCE", "TARGET", NULL};
    static const char *const local[] = {"FILE", "SOURCE", "TARGET", NULL};
    static const char *const dirs[] = {"DIR", NULL};

    struct str choices = choices_of(what);
    if (choices.n) {
        offer_choices(typed, lead, choices);
        return ":none";
    }
    if (names_any(what, remote)) offer_remote(cli, typed, lead, strcmp(what, "BUCKET") == 0);
    if (place_is_remote(typed)) return ":none";
    return names_any(what, local) ? ":files" : names_any(what, dirs) ? ":dirs" : ":none";
}

static const char *offer_commands(struct str typed)
{
    for (const struct command *const *c = cli_commands; *c; c++) {
        offer_if(typed, (*c)->name, (*c)->summary);
        if ((*c)->alias && typed.n) offer_if(typed, (*c)->alias, (*c)->summary);
    }
    return ":none";
}

void complete_words(struct cli *cli, int n, char **words)
{
    struct cli_scanned s;
    const char *typed = words[n - 1], *rest = ":none", *is = strchr(typed, '=');
    char lead[80] = "";

    cli_scan(cli, n, words, &s);
    if (!s.wants && typed[0] == '-' && typed[1] == '-' && is && (size_t)(is + 1 - typed) < sizeof lead) {
        s.wants = cli_find_option(s.command, str_make(typed + 2, (size_t)(is - typed) - 2));
        if (s.wants) snprintf(lead, sizeof lead, "%.*s", (int)(is + 1 - typed), typed);
        typed = s.wants ? is + 1 : typed;
    }
    if (s.wants && s.wants->type != OPT_FLAG) {
        rest = offer_values(cli, s.wants->arg, typed, lead);
    } else if (typed[0] == '-' && !s.ended) {
        if (s.command) offer_options(str_c(typed), s.command->opts);
        offer_options(str_c(typed), cli_global_opts);
        offer_if(str_c(typed), "--help", "show how this is used");
        if (!s.command) offer_if(str_c(typed), "--version", "print the version");
    } else if (!s.command) {
        rest = offer_commands(str_c(typed));
    } else if (s.command->max_args < 0 || s.operands < s.command->max_args) {
        const char *args = s.command->args;
        rest = offer_values(cli, s.operands ? args + choices_of(args).n : args, typed, "");
    }
    puts(rest);
}
