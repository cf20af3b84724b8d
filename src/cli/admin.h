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

#endif
