/* creds.h - where an origin's credentials come from. Loaded at start and on reload (never on a worker); profile files are
 * the AWS ones (~/.aws/credentials and config, AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE, AWS_PROFILE). */
#ifndef S3P_S3_CREDS_H
#define S3P_S3_CREDS_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>

struct credentials {
    char access_key[160], secret_key[160], session_token[4096]; /* NUL-terminated; token "" if none */
    bool anonymous;                                             /* source: none - requests are not signed */
    char region[64];                                            /* region found beside them, "" if none */
};
enum creds_source { CREDS_AUTO, CREDS_ENV, CREDS_PROFILE, CREDS_STATIC, CREDS_NONE };
struct creds_conf {
    enum creds_source source;
    const char *access_key, *secret_key, *session_token; /* STATIC */
    const char *profile;                                 /* NULL: AWS_PROFILE or "default" */
    const char *file;                                    /* NULL: the usual places */
};
/* AUTO: environment, then profile file. Failure: ERR_CREDENTIALS and one line for people in msg (never a secret). */
enum err creds_load(const struct creds_conf *c, struct credentials *out, char *msg, size_t n);
void creds_wipe(struct credentials *c);

#endif
