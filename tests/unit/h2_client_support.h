/* h2_client_support.h - for the tests of the HTTP/2 client connection: one against an nghttp2 server session (h2_peer.h),
 * over loopback and turned by hand, and requests that remember what happened to them. Includes the client's sources. */
#ifndef S3P_TESTS_H2_CLIENT_SUPPORT_H
#define S3P_TESTS_H2_CLIENT_SUPPORT_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "h1_support.h"
#include "h2_peer.h"

#include "base/hash.h"
#include "http/h2_client.c"
#include "http/h2_client_frames.c"
#include "http/h2_client_call.c"

static struct h2_shared shared;
static struct h2_peer peer;
static struct h2_client *client;
static bool peer_alive, client_gone;
static unsigned changes;
static struct client_timeouts timeouts;
static const struct h1_limits head_limits = {.head_bytes = 16384, .target_bytes = 8192, .headers = 64};

static void owner_changed(void *arg, struct h2_client *c)
{
    (void)arg, (void)c;
    changes++;
}
static void owner_closed(void *arg, struct h2_client *c)
{
    (void)arg;
    client_gone = true;
    client = NULL;
    h2_client_destroy(c);
}
static const struct h2_client_owner owner = {owner_changed, owner_closed};

static int setup(void **state)
{
    struct stream *s;
    (void)state;
    memset(&shared, 0, sizeof shared);
    timeouts = (struct client_timeouts){.first_byte_ms = 5000, .stall_ms = 5000};
    assert_int_equal(loop_create(&loop), ERR_OK);
    peer_init(&peer, connect_pair(&s), NULL, &shared);
    peer_alive = true;
    client_gone = false;
    changes = 0;
    assert_int_equal(h2_client_create(s, &head_limits, &timeouts, 0, &owner, NULL, &client), ERR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (client) h2_client_destroy(client);
    peer_free(&peer);
    loop_destroy(loop);
    return 0;
}

/* Both ends take turns. */
static void run(unsigned rounds)
{
    while (rounds--) {
        pump();
        if (peer_alive && !peer_step(&peer)) {
            peer_alive = false;
            shutdown(peer.fd, SHUT_RDWR);
        }
    }
    pump();
}

/* ---- a request that remembers */

enum { CANCEL_NONE, CANCEL_HEAD, CANCEL_SPACE, CANCEL_FILLED, CANCEL_END };
struct get {
    struct h2_call *stream;
    struct client_request req;
    uint8_t *buf;
    size_t cap, n, step, pause_at;
    unsigned status, heads, ends, nhdrs;
    int64_t length;
    enum err why;
    bool paused, unprocessed, refused, wants_h1;
    int cancel_in;
    struct get *then; /* sent from end() */
};

static bool cancel_here(struct get *g, int where)
{
    if (g->cancel_in != where) return false;
    h2_call_cancel(g->stream);
    return true;
}
static void get_send(struct get *g);
static void get_head(void *arg, const struct head *h, int64_t length)
{
    struct get *g = arg;
    g->heads++;
    g->status = h->status;
    g->length = length;
    g->nhdrs = h->nhdrs;
    cancel_here(g, CANCEL_HEAD);
}
static unsigned get_space(void *arg, struct iovec *iov, unsigned max)
{
    struct get *g = arg;
    (void)max;
    if (cancel_here(g, CANCEL_SPACE)) return 0;
    size_t room = g->cap - g->n;
    if (room > g->pause_at - g->n) room = g->pause_at - g->n;
    if (room == 0) {
        g->paused = true;
        return 0;
    }
    if (g->step && room > g->step) room = g->step;
    iov[0] = (struct iovec){g->buf + g->n, room / 2};
    iov[1] = (struct iovec){g->buf + g->n + room / 2, room - room / 2};
    return 2;
}
static void get_filled(void *arg, size_t n)
{
    struct get *g = arg;
    g->n += n;
    cancel_here(g, CANCEL_FILLED);
}
static void get_end(void *arg, enum err why)
{
    struct get *g = arg;
    g->ends++;
    g->why = why;
    g->unprocessed = h2_call_unprocessed(g->stream);
    g->refused = h2_call_refused(g->stream);
    g->wants_h1 = h2_call_wants_h1(g->stream);
    cancel_here(g, CANCEL_END);
    if (g->then) get_send(g->then);
}
static const struct client_events events = {get_head, get_space, get_filled, get_end};

static void get_init(struct get *g, const char *path, size_t cap)
{
    *g = (struct get){.cap = cap, .pause_at = SIZE_MAX, .buf = calloc(1, cap ? cap : 1)};
    g->req = (struct client_request){.method = STR_LIT("GET"), .method_id = METHOD_GET, .target = str_c(path),
                                     .authority = STR_LIT("origin.test")};
}
static void get_send(struct get *g)
{
    assert_int_equal(h2_client_send(client, &g->req, g->cap, &events, g, &g->stream), ERR_OK);
}
static bool is_pattern(const struct get *g, size_t n)
{
    if (g->n != n) return false;
    for (size_t i = 0; i < n; i++)
        if (g->buf[i] != h2_pattern_at(i)) return false;
    return true;
}
static void get_free(struct get *g) { free(g->buf); }

static struct get one;
static enum err end_of(const char *path, size_t cap)
{
    get_init(&one, path, cap);
    get_send(&one);
    for (int i = 0; i < 400 && !one.ends; i++) run(2);
    assert_int_equal(one.ends, 1);
    get_free(&one);
    return one.why;
}

#endif
