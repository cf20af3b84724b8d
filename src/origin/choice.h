/* choice.h - HTTP/1.1 or HTTP/2, per origin and kind of request; shared by all workers, without locks.
 *
 * With `http2: auto` and an origin that offers h2 (ALPN), requests that move 1 MiB and more go over HTTP/1.1, where each
 * has a connection of its own, and all others over HTTP/2, where many share one. What a request of each kind got over
 * each protocol is averaged: the rate for the long ones, times how many ran beside it; the time to the first byte for the
 * short ones, waiting for a connection included. One in 16 goes the other way, so that there is something to compare with;
 * one in 64 when 16 of them have been seen. A kind changes over when the other protocol is better by a third over at least
 * 16 requests each.
 * An origin that speaks h2 only (it ends HTTP/1.1 connections without a word) gets everything over HTTP/2.
 *
 * Updates of the averages by two workers at the same moment may lose one of the two: they are averages. */
#ifndef S3P_ORIGIN_CHOICE_H
#define S3P_ORIGIN_CHOICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"

enum proto { PROTO_H1, PROTO_H2 };
enum load { LOAD_SMALL, LOAD_BULK };
enum { CHOICE_BULK_BYTES = 1 << 20, CHOICE_EXPLORE = 64, CHOICE_EXPLORE_FIRST = 16, CHOICE_SAMPLES = 16 };

struct choice {
    enum origin_http2 mode;
    bool tls;
    _Atomic int offered;      /* h2 by the origin: -1 not known yet, 0, 1 */
    _Atomic uint64_t until_ms; /* offered == 0 holds until then */
    _Atomic bool h1_works;    /* has answered over HTTP/1.1 */
    _Atomic uint64_t h2_only_until_ms;
    _Atomic int now[2];       /* [load]: enum proto */
    _Atomic uint32_t turn[2]; /* [load]: requests chosen for */
    struct {
        _Atomic uint64_t samples, value; /* LOAD_SMALL: us to the first byte; LOAD_BULK: bytes per second */
    } seen[2][2];             /* [load][proto] */
    _Atomic uint64_t usual_bytes; /* of responses whose length the request did not tell */
};
void choice_init(struct choice *c, enum origin_http2 mode, bool tls);
/* bytes: what the request will move. */
enum proto choice_pick(struct choice *c, uint64_t bytes, uint64_t now_ms);
static inline enum load load_of(uint64_t bytes) { return bytes >= CHOICE_BULK_BYTES ? LOAD_BULK : LOAD_SMALL; }
void choice_offered(struct choice *c, bool h2, uint64_t now_ms); /* what ALPN said */
/* An answer came over HTTP/1.1; a connection that was to carry HTTP/1.1 ended without one. True: HTTP/2 is worth a try. */
void choice_h1_answered(struct choice *c);
bool choice_h1_failed(struct choice *c, uint64_t now_ms);
/* A request of that kind has gone well. in_flight: how many ran beside it and itself. */
void choice_learn_small(struct choice *c, enum proto p, uint64_t first_byte_us);
void choice_learn_bulk(struct choice *c, enum proto p, uint64_t bytes, uint64_t us, uint64_t in_flight);
void choice_learn_usual(struct choice *c, uint64_t bytes);
uint64_t choice_usual(const struct choice *c);
/* What is chosen now, and why; both static texts. Any thread. */
void choice_text(const struct choice *c, uint64_t now_ms, const char **choice, const char **why);
/* The average, 0 when nothing is known. Any thread. */
uint64_t choice_seen(const struct choice *c, enum load l, enum proto p);

#endif
