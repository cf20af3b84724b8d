/* admin.c (cli) - see the header. */
#include "cli/admin.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define NO_ADMIN_ROUTE " (this is no admin route of s3dlio-proxy; --admin-path and --endpoint-url say where there is one)"
#define ANSWER_BYTES ((size_t)256 << 20)

/* "/_s3dlio/" and "stats" to bucket "_s3dlio" and key "stats": the path that goes out is theirs joined. */
static bool admin_address(const struct cli *cli, const char *name, struct call_request *q, struct strbuf *path)
{
    const char *at = cli->admin_path;
    size_t n = strlen(at);

    while (*at == '/') at++, n--;
    while (n && at[n - 1] == '/') n--;
    strbuf_add(path, at, n);
    strbuf_ch(path, '/');
    strbuf_z(path, name);
    if (path->failed || n == 0) return false;
    struct str all = strbuf_get(path);
    size_t slash = str_find(all, '/');
    q->bucket = str_make(all.p, slash);
    q->key = str_make(all.p + slash + 1, all.n - slash - 1);
    return true;
}

struct sent_text {
    struct str text;
};

static struct body *text_body(void *arg)
{
    const struct sent_text *t = arg;
    return body_of_memory(t->text);
}

static int admin_failed(const struct cli *cli, const char *name, const struct call_result *r, char *why, size_t n)
{
    char text[512];

    if (r->err == ERR_CANCELLED && cli->net.interrupted) return EXIT_INTERRUPTED;
    bool elsewhere = r->status >= 300 && r->status < 500 && !r->by_proxy;
    snprintf(why, n, "%s at %s: %s%s", name, cli->net.url, call_why(r, text, sizeof text),
             elsewhere ? NO_ADMIN_ROUTE : "");
    return r->by_proxy && call_not_found(r) ? EXIT_NOT_THERE : EXIT_FAILED;
}

/* What a key in a JSON text cannot be, a percent-encoded path is. */
json_t *admin_place(const char *text)
{
    struct pool *pool = NULL;
    struct place p;
    json_t *v = json_string(text);

    if (v || place_parse(text, &p) != ERR_OK || (pool = pool_create((size_t)1 << 20)) == NULL) return v;
    struct str key = uri_encode(pool, p.key, true);
    struct str path = key.p ? pool_f(pool, "/" STR_FMT "/" STR_FMT, STR_ARG(p.bucket), STR_ARG(key)) : key;
    if (path.p) v = json_stringn(path.p, path.n);
    pool_destroy(pool);
    return v;
}

bool admin_read_place(const char *text, bool needs_key)
{
    struct place p;

    if (place_is_remote(text)) return cli_read_place(text, needs_key, &p);
    const char *slash = text[0] == '/' && text[1] && text[1] != '/' ? strchr(text + 1, '/') : NULL;
    if (text[0] == '/' && (!needs_key || (slash && slash[1]))) return true;
    cli_error("%s: expected s3://BUCKET%s or, percent-encoded, /BUCKET%s", text, needs_key ? "/KEY" : "[/KEY]", needs_key ? "/KEY" : "[/KEY]");
    return false;
}

int admin_not_understood(const struct cli *cli, const char *name)
{
    cli_error("%s at %s: the answer is not what this program knows: is the proxy of another version?", name, cli->net.url);
    return EXIT_FAILED;
}

int admin_try(struct cli *cli, enum method method, const char *name, struct str query, const char *body, char **answer, char *why,
              size_t n)
{
    static const struct hdr json_type = {{"content-type", 12}, {"application/json", 16}, HDR_CONTENT_TYPE};
    struct strbuf path, text;
    struct sent_text sent = {str_c(body)};
    struct call_request q = {.method = method, .query = query};
    struct call_sync s = {.body = &text};
    struct call_result r;
    int code = EXIT_FAILED;

    *answer = NULL;
    why[0] = '\0';
    strbuf_init(&path, 4096);
    strbuf_init(&text, ANSWER_BYTES);
    if (body) {
        q.body = text_body;
        q.body_arg = &sent;
        q.body_length = (int64_t)sent.text.n;
        q.hdrs = &json_type;
        q.nhdrs = 1;
    }
    if (!admin_address(cli, name, &q, &path)) {
        snprintf(why, n, "--admin-path %s: expected a path such as /_s3dlio/", cli->admin_path);
        code = EXIT_USAGE;
    } else {
        call_wait(&cli->net, &q, &s, &r);
        if (r.err != ERR_OK) code = admin_failed(cli, name, &r, why, n);
        else if ((*answer = strndup(text.p ? text.p : "", text.n)) != NULL) code = EXIT_OK;
        else snprintf(why, n, "%s", err_text(ERR_NOMEM));
    }
    strbuf_free(&path);
    strbuf_free(&text);
    return code;
}

int admin_try_json(struct cli *cli, enum method method, const char *name, struct str query, const char *body, json_t **answer,
                   char *why, size_t n)
{
    char *text;
    json_error_t error;
    int code = admin_try(cli, method, name, query, body, &text, why, n);

    *answer = NULL;
    if (code != EXIT_OK) return code;
    *answer = json_loads(text, 0, &error);
    free(text);
    if (*answer) return EXIT_OK;
    snprintf(why, n, "%s at %s: the answer is no JSON (line %d)" NO_ADMIN_ROUTE, name, cli->net.url, error.line);
    return EXIT_FAILED;
}

int admin_ask(struct cli *cli, enum method method, const char *name, struct str query, const char *body, char **answer)
{
    char why[1024];
    int code = admin_try(cli, method, name, query, body, answer, why, sizeof why);

    if (why[0]) cli_error("%s", why);
    return code;
}

int admin_ask_json(struct cli *cli, enum method method, const char *name, struct str query, const char *body, json_t **answer)
{
    char why[1024];
    int code = admin_try_json(cli, method, name, query, body, answer, why, sizeof why);

    if (why[0]) cli_error("%s", why);
    return code;
}

int admin_post_json(struct cli *cli, const char *name, json_t *body, json_t **answer)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    int code = EXIT_FAILED;

    *answer = NULL;
    json_decref(body);
    if (text) code = admin_ask_json(cli, METHOD_POST, name, (struct str){NULL, 0}, text, answer);
    else cli_error("%s", err_text(ERR_NOMEM));
    free(text);
    return code;
}
