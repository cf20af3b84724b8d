/* tls_cert.c - loading certificates and keys, and refusing at start what clients would refuse later.
 *
 * Weak is what is below 112 bits of security (RSA below 2048 bits, EC below 224), or a signature over SHA-1 or less, of
 * the certificate or of one between it and the root (a root's own signature says nothing). A chain certificate that is
 * over makes clients fail like one of ours that is over: both are looked at. */
#include "io/tls_cert.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/str.h"
#include "io/tls_impl.h"

#define SECURITY_BITS_MIN 112 /* NIST SP 800-57: RSA of 2048 bits */
#define NAMES_MAX 4096

static enum err refuse(char *msg, size_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static enum err refuse(char *msg, size_t n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, n, fmt, ap);
    va_end(ap);
    ERR_clear_error();
    return ERR_CONFIG;
}

static enum err open_file(const char *what, const char *path, FILE **out, char *msg, size_t n)
{
    struct stat st;
    *out = fopen(path, "re");
    if (*out && fstat(fileno(*out), &st) == 0 && !S_ISDIR(st.st_mode)) return ERR_OK;
    int number = *out ? EISDIR : errno;
    if (*out) fclose(*out);
    *out = NULL;
    return refuse(msg, n, "%s %s: cannot be read: %s", what, path, strerror(number));
}

/* No passphrase: nobody is there to type it. `arg` is set when one would be needed. */
static int on_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf, (void)size, (void)writing;
    *(bool *)arg = true;
    return -1;
}

static bool nothing_found(void)
{
    unsigned long code = ERR_peek_last_error();
    return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

/* ---- files */

static enum err read_certificates(const char *path, struct tls_cert *out, char *msg, size_t n)
{
    FILE *f;
    bool encrypted = false;
    enum err e = open_file("certificate", path, &f, msg, n);
    if (e != ERR_OK) return e;
    ERR_clear_error();
    out->leaf = PEM_read_X509_AUX(f, NULL, on_passphrase, &encrypted);
    for (X509 *more; out->leaf && (more = PEM_read_X509(f, NULL, on_passphrase, &encrypted));) {
        if (!out->chain) out->chain = sk_X509_new_null();
        if (!out->chain || !sk_X509_push(out->chain, more)) {
            X509_free(more);
            e = ERR_NOMEM;
            break;
        }
    }
    fclose(f);
    if (e != ERR_OK)
        snprintf(msg, n, "certificate %s: out of memory", path);
    else if (!nothing_found()) /* the only good reason to have stopped */
        e = refuse(msg, n, "certificate %s: malformed: %s", path, tls_openssl_reason());
    else if (!out->leaf)
        e = refuse(msg, n, "certificate %s: no certificate in it, expected PEM (-----BEGIN CERTIFICATE-----)", path);
    ERR_clear_error();
    return e;
}

/* OpenSSL's error does not tell "nothing there" from "nothing that I know". */
static bool has_key(FILE *f)
{
    char *name, *header;
    unsigned char *data;
    long n;
    bool found = false;
    rewind(f);
    while (!found && PEM_read(f, &name, &header, &data, &n)) {
        found = strstr(name, "PRIVATE KEY") != NULL;
        OPENSSL_free(name);
        OPENSSL_free(header);
        OPENSSL_clear_free(data, (size_t)n);
    }
    return found || !nothing_found();
}

static enum err read_key(const char *path, struct tls_cert *out, char *msg, size_t n)
{
    FILE *f;
    bool encrypted = false;
    enum err e = open_file("key", path, &f, msg, n);
    if (e != ERR_OK) return e;
    ERR_clear_error();
    out->key = PEM_read_PrivateKey(f, NULL, on_passphrase, &encrypted);
    if (encrypted)
        e = refuse(msg, n, "key %s: encrypted, expected a key without passphrase", path);
    else if (!out->key && !has_key(f))
        e = refuse(msg, n, "key %s: no private key in it, expected PEM (-----BEGIN PRIVATE KEY-----)", path);
    else if (!out->key)
        e = refuse(msg, n, "key %s: malformed, or of a kind that is not known", path);
    fclose(f);
    ERR_clear_error();
    return e;
}

/* ---- checks */

static const char *time_text(const ASN1_TIME *at, char *buf, size_t n)
{
    struct tm tm;
    if (!ASN1_TIME_to_tm(at, &tm) || !strftime(buf, n, "%Y-%m-%d %H:%M:%S UTC", &tm)) snprintf(buf, n, "?");
    return buf;
}

/* "certificate FILE", or "certificate FILE: 'CN=Issuer' in its chain". */
static const char *cert_place(const char *path, X509 *cert, bool leaf, char *buf, size_t n)
{
    char *subject = leaf ? NULL : X509_NAME_oneline(X509_get_subject_name(cert), NULL, 0);
    if (leaf)
        snprintf(buf, n, "certificate %.200s:", path);
    else
        snprintf(buf, n, "certificate %.200s: '%.100s' in its chain is", path, subject ? subject : "?");
    OPENSSL_free(subject);
    return buf;
}

static enum err check_times(const char *path, X509 *cert, bool leaf, char *msg, size_t n)
{
    char place[360], when[40];
    const ASN1_TIME *from = X509_get0_notBefore(cert), *to = X509_get0_notAfter(cert);
    int begun = X509_cmp_current_time(from), over = X509_cmp_current_time(to); /* -1: past, 1: future, 0: unreadable */
    cert_place(path, cert, leaf, place, sizeof place);
    if (begun == 0 || over == 0) return refuse(msg, n, "%s without a valid time", place);
    if (begun > 0) return refuse(msg, n, "%s not valid before %s", place, time_text(from, when, sizeof when));
    if (over < 0) return refuse(msg, n, "%s expired since %s", place, time_text(to, when, sizeof when));
    return ERR_OK;
}

static enum err check_strength(const char *path, X509 *cert, bool leaf, char *msg, size_t n)
{
    char place[360];
    int digest = NID_undef, bits = 0;
    EVP_PKEY *key = X509_get0_pubkey(cert);
    bool root = X509_get_extension_flags(cert) & EXFLAG_SS;
    cert_place(path, cert, leaf, place, sizeof place);
    if (!key) return refuse(msg, n, "%s without a usable key: %s", place, tls_openssl_reason());
    if (EVP_PKEY_get_security_bits(key) < SECURITY_BITS_MIN)
        return refuse(msg, n, "%s weak, its %s key has %d bits, expected RSA of at least 2048 or EC of at least 224",
                      place, EVP_PKEY_get0_type_name(key) ? EVP_PKEY_get0_type_name(key) : "public",
                      EVP_PKEY_get_bits(key));
    if (root && !leaf) return ERR_OK;
    if (!X509_get_signature_info(cert, &digest, NULL, &bits, NULL))
        return refuse(msg, n, "%s signed in a way that is not known", place);
    if (digest == NID_md5 || digest == NID_sha1 || digest == NID_md5_sha1 || digest == NID_md4)
        return refuse(msg, n, "%s weak, signed over %s, expected SHA-256 or better", place, OBJ_nid2sn(digest));
    return ERR_OK;
}

static enum err check_all(const char *path, const struct tls_cert *c, char *msg, size_t n)
{
    for (int i = -1; i < (c->chain ? sk_X509_num(c->chain) : 0); i++) {
        X509 *cert = i < 0 ? c->leaf : sk_X509_value(c->chain, i);
        enum err e = check_times(path, cert, i < 0, msg, n);
        if (e == ERR_OK) e = check_strength(path, cert, i < 0, msg, n);
        if (e != ERR_OK) return e;
    }
    return ERR_OK;
}

/* ---- names */

static bool name_add(struct tls_cert *c, const ASN1_IA5STRING *text)
{
    const char *p = (const char *)ASN1_STRING_get0_data(text);
    int len = ASN1_STRING_length(text);
    if (len <= 0 || len >= TLS_NAME_BYTES || memchr(p, '\0', (size_t)len)) return true; /* cannot be asked for */
    char *name = str_dup(str_make(p, (size_t)len));
    if (!name) return false;
    for (char *at = name; *at; at++)
        if (*at >= 'A' && *at <= 'Z') *at = (char)(*at | 0x20);
    c->names[c->nnames++] = name;
    return true;
}

static bool read_names(struct tls_cert *c)
{
    GENERAL_NAMES *all = X509_get_ext_d2i(c->leaf, NID_subject_alt_name, NULL, NULL);
    int count = all ? sk_GENERAL_NAME_num(all) : 0;
    if (count > NAMES_MAX) count = NAMES_MAX;
    c->names = calloc((size_t)count + 1, sizeof *c->names);
    bool ok = c->names != NULL;
    for (int i = 0; ok && i < count; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);
        if (name->type == GEN_DNS) ok = name_add(c, name->d.dNSName);
    }
    GENERAL_NAMES_free(all);
    ERR_clear_error();
    return ok;
}

int tls_cert_fits(const struct tls_cert *c, const char *name)
{
    const char *dot = strchr(name, '.');
    int best = 0;
    for (unsigned i = 0; i < c->nnames && best < 2; i++) {
        if (strcmp(c->names[i], name) == 0) best = 2;
        /* A wildcard is a whole first label, and stands for one (RFC 9525, 6.3). */
        else if (dot && dot > name && strncmp(c->names[i], "*.", 2) == 0 && strcmp(c->names[i] + 1, dot) == 0)
            best = 1;
    }
    return best;
}

/* ---- both */

enum err tls_cert_load(const struct tls_certificate *files, struct tls_cert *out, char *msg, size_t n)
{
    const char *key_path = files->key ? files->key : files->certificate;
    enum err e = read_certificates(files->certificate, out, msg, n);
    if (e == ERR_OK) e = check_all(files->certificate, out, msg, n);
    if (e == ERR_OK) e = read_key(key_path, out, msg, n);
    if (e != ERR_OK) return e;
    if (X509_check_private_key(out->leaf, out->key) != 1)
        return refuse(msg, n, "key %s: does not belong to certificate %s", key_path, files->certificate);
    if (read_names(out)) return ERR_OK;
    snprintf(msg, n, "certificate %s: out of memory", files->certificate);
    return ERR_NOMEM;
}

void tls_cert_clear(struct tls_cert *c)
{
    X509_free(c->leaf);
    sk_X509_pop_free(c->chain, X509_free);
    EVP_PKEY_free(c->key);
    for (unsigned i = 0; i < c->nnames; i++) free(c->names[i]);
    free(c->names);
    *c = (struct tls_cert){0};
}
