/* sniff.h - one cleartext port for HTTP/1.x and HTTP/2: the first bytes decide (RFC 9113 section 3.3, prior
 * knowledge).
 *
 * A connection waits here until it has sent something that is not, or the whole of, the HTTP/2 preface. What was read
 * by then goes to whoever gets the connection. `Upgrade: h2c` is HTTP/1.1 and stays it. What is neither protocol is
 * closed. */
#ifndef S3P_HTTP_SNIFF_H
#define S3P_HTTP_SNIFF_H

#include "http/exchange.h"
#include "io/listen.h"
#include "io/stream.h"

enum { SNIFF_BYTES = 1024 }; /* most that is handed over */

struct sniffer; /* one per worker */
/* The stream is the callee's now, with the n >= 1 bytes read from it, valid during the call. tag: as given to add. */
typedef void sniffed_fn(void *arg, void *tag, struct stream *st, const struct address *peer, enum proto proto,
                        const void *bytes, size_t n);
struct sniff_conf {
    uint64_t idle_timeout_ms; /* until the first byte */
    uint64_t head_timeout_ms; /* from there to the decision */
    /* Keep what `tag` refers to alive while a connection waits; NULL: it lives anyway. */
    void (*hold)(void *owner);
    void (*unhold)(void *owner);
    void *owner;
};
enum err sniffer_create(struct loop *l, sniffed_fn *fn, void *arg, struct sniffer **out);
/* Takes over a connected stream; on ERR_NOMEM it stays with the caller. conf must stay as long as hold makes it. fn
 * is not called before the next turn of the loop. */
enum err sniffer_add(struct sniffer *s, struct stream *st, const struct address *peer, const struct sniff_conf *conf,
                     void *tag);
unsigned sniffer_waiting(const struct sniffer *s);
/* Closes all that wait: they have not asked for anything yet. */
void sniffer_close_all(struct sniffer *s);
void sniffer_destroy(struct sniffer *s); /* closes all, too */

#endif
