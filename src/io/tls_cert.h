/* tls_cert.h - a server's certificate and its key from files, with a clear line for whatever is wrong with them. */
#ifndef S3P_IO_TLS_CERT_H
#define S3P_IO_TLS_CERT_H

#include <openssl/ssl.h>

#include "io/tls.h"

struct tls_cert {
    X509 *leaf;
    STACK_OF(X509) * chain; /* what else is in the file; NULL: nothing */
    EVP_PKEY *key;
    char **names; /* DNS names, lower case: "a.example.com", "*.example.com" */
    unsigned nnames;
};

/* `out` is zeroed before; what is in it is freed by tls_cert_clear, also after a failure. ERR_CONFIG or ERR_NOMEM, with
 * msg. Messages name files, never what is in a key. */
enum err tls_cert_load(const struct tls_certificate *files, struct tls_cert *out, char *msg, size_t n);
void tls_cert_clear(struct tls_cert *c);
/* How well a certificate fits a name: 2 exactly, 1 by wildcard, 0 not. Name in lower case. */
int tls_cert_fits(const struct tls_cert *c, const char *name);

#endif
