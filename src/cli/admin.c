/* admin.c (cli) - see the header. */
#include "cli/admin.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

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
    snprintf(why, n, "%s at %s: %s", name, cli->net.url, call_why(r, text, sizeof text));
    return call_not_found(r) ? EXIT_NOT_THERE : EXIT_FAILED;
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
    snprintf(why, n, "%s at %s: the answer is no JSON (line %d): is this the admin route of s3dlio-proxy?", name, cli->net.url,
             error.line);
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
