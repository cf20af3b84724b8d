/* admin.h - what commands ask of the proxy's admin route (modules/admin/admin.c says what there is). */
#ifndef S3P_CLI_ADMIN_H
#define S3P_CLI_ADMIN_H

#include "cli/cli.h"

/* METHOD admin-path/NAME?query (query may be {NULL, 0}); body NULL: none, else JSON text. What is answered is put into *answer, malloc'ed and
 * NUL-terminated, the caller's to free; NULL with any other result than EXIT_OK. Says what is wrong, and returns an exit
 * code. */
int admin_ask(struct cli *cli, enum method method, const char *name, struct str query, const char *body, char **answer);
/* The same, but what is wrong is put into why (no line end), for those who print it elsewhere; "" when interrupted. */
int admin_try(struct cli *cli, enum method method, const char *name, struct str query, const char *body, char **answer, char *why,
              size_t n);
/* As admin_ask, as JSON; the caller's reference. */
int admin_ask_json(struct cli *cli, enum method method, const char *name, struct str query, const char *body,
                   struct json_t **answer);
/* As admin_try, as JSON. */
int admin_try_json(struct cli *cli, enum method method, const char *name, struct str query, const char *body,
                   struct json_t **answer, char *why, size_t n);
/* The same with a document to send, which is taken; NULL counts as out of memory. */
int admin_post_json(struct cli *cli, const char *name, struct json_t *body, struct json_t **answer);

/* Operands of these commands: s3://BUCKET/KEY, or a path /BUCKET/KEY, percent-encoded as in a request. False: it is neither,
 * which was said. */
bool admin_read_place(const char *text, bool needs_key);
/* One of them as JSON; new reference, NULL: memory ran out. */
struct json_t *admin_place(const char *text);
/* Says that an answer has another shape than expected; EXIT_FAILED. */
int admin_not_understood(const struct cli *cli, const char *name);

#endif
