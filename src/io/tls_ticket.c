/* tls_ticket.c - keys for session tickets (RFC 5077, 4), so that clients resume without the server keeping anything.
 *
 * There are two keys: the current one seals, the previous one still opens; what it opens is given anew. A key is changed
 * after each period, by whichever handshake notices first: it seals for one period and opens for two, and is then gone
 * from memory, so that tickets recorded long ago cannot be opened with what is found later. A context made by a reload
 * shares the keys of the one before it. */
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "io/loop.h"
#include "io/tls_impl.h"

#define KEY_NAME_BYTES 16

struct ticket_key {
    unsigned char name[KEY_NAME_BYTES];
    unsigned char cipher[32]; /* AES-256-CBC */
    unsigned char mac[32];    /* HMAC-SHA-256 */
};

struct tls_tickets {
    atomic_uint refs;
    pthread_mutex_t lock;
    /* under lock */
    uint64_t period_ms, made_ms; /* made_ms: when `current` was */
    bool has_previous;
    struct ticket_key current, previous;
};

struct tls_tickets *tls_tickets_create(uint64_t period_ms)
{
    struct tls_tickets *k = calloc(1, sizeof *k);
    if (!k) return NULL;
    if (RAND_bytes((unsigned char *)&k->current, sizeof k->current) != 1) {
        free(k);
        return NULL;
    }
    atomic_init(&k->refs, 1);
    pthread_mutex_init(&k->lock, NULL);
    k->period_ms = period_ms;
    k->made_ms = clock_ns() / 1000000;
    return k;
}

struct tls_tickets *tls_tickets_share(struct tls_tickets *k, uint64_t period_ms)
{
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    pthread_mutex_lock(&k->lock);
    k->period_ms = period_ms;
    pthread_mutex_unlock(&k->lock);
    return k;
}

void tls_tickets_unref(struct tls_tickets *k)
{
    if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1) return;
    pthread_mutex_destroy(&k->lock);
    OPENSSL_cleanse(k, sizeof *k);
    free(k);
}

/* False: there is no randomness, and the current key is too old. */
static bool rotate_locked(struct tls_tickets *k)
{
    struct ticket_key fresh;
    uint64_t now_ms = clock_ns() / 1000000, age_ms = now_ms - k->made_ms;
    if (age_ms < k->period_ms) return true;
    if (RAND_bytes((unsigned char *)&fresh, sizeof fresh) != 1) return false;
    k->previous = k->current;
    k->has_previous = age_ms < 2 * k->period_ms; /* nobody came for so long that even that one is over */
    if (!k->has_previous) OPENSSL_cleanse(&k->previous, sizeof k->previous);
    k->current = fresh;
    k->made_ms = now_ms;
    OPENSSL_cleanse(&fresh, sizeof fresh);
    return true;
}

/* 1: to be used; 2: to open with, but give a new ticket; 0: no such key, a full handshake; -1: failure. */
static int key_take(struct tls_tickets *k, const unsigned char *name, bool seal, struct ticket_key *out)
{
    int found = 0;
    pthread_mutex_lock(&k->lock);
    if (!rotate_locked(k)) {
        found = -1;
    } else if (seal || memcmp(name, k->current.name, KEY_NAME_BYTES) == 0) {
        *out = k->current;
        found = 1;
    } else if (k->has_previous && memcmp(name, k->previous.name, KEY_NAME_BYTES) == 0) {
        *out = k->previous;
        found = 2;
    }
    pthread_mutex_unlock(&k->lock);
    return found;
}

int tls_tickets_use(struct tls_tickets *k, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                    EVP_MAC_CTX *mac, int enc)
{
    struct ticket_key key;
    char digest[] = "SHA256";
    int found = key_take(k, name, enc, &key);
    if (found <= 0) return found;

    OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.mac, sizeof key.mac),
                           OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                           OSSL_PARAM_construct_end()};
    bool ok = EVP_MAC_CTX_set_params(mac, params) == 1;
    if (enc) {
        memcpy(name, key.name, KEY_NAME_BYTES);
        ok = ok && RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) == 1;
    }
    ok = ok && EVP_CipherInit_ex2(cipher, EVP_aes_256_cbc(), key.cipher, iv, enc, NULL) == 1;
    OPENSSL_cleanse(&key, sizeof key);
    return ok ? found : -1;
}
