/* h2_pool.c - see the header.
 *
 *   a conn is  | in the list | holds            | leaves by
 *   CONNECTING | connecting  | slot, connector  | open, or gone when the connect failed
 *   OPEN       | open        | slot, h2 client  | closed by the peer, idle too long, given up for others
 *   RETIRING   | retiring    | slot, h2 client  | gone with its last request (GOAWAY, or another worker needs the slot)
 *
 * As in pool.c all decisions are made in pool_serve, a task, which looks at the lists afresh after each call out. */
#include "origin/h2_pool.h"

#include <stdlib.h>

#include "base/log.h"
#include "origin/climb.h"

#define POOL_MAGIC 0x68327067u
#define CONN_MAGIC 0x6832636eu
#define RESTED_MS 100
#define REFUSED_HOLD_MS 100
#define FAILED_HOLD_MS 500 /* after a failed connect, while there are other connections */
#define TENURE_MS 1000 /* a connection is kept so long before another worker may have its slot */
#define DENIED_MS 1000 /* how long those wait whom the origin allows no request at all */
#define START_CONNS 4 /* over so many bulk is spread before anything has been measured */
#define SPREAD_BYTES (4u << 20) /* with so much before it, bulk waits for a connection that is on its way, */
#define HOLD_OUT_MS 500         /* so long */
#define ROOM_GUESS 32  /* calls that a connection under way is expected to take */

/* As in pool.c. */
static const struct h1_limits response_limits = {.head_bytes = 65536, .target_bytes = 8192, .headers = 256};

enum conn_state { CONN_CONNECTING, CONN_OPEN, CONN_RETIRING };
struct h2_link {
    uint32_t magic;
    enum conn_state state;
    struct h2_pool *pool;
    struct list link;
    struct connector *connector;
    struct h2_client *client;
    uint64_t outstanding; /* bytes */
    uint64_t began_ms, opened_ms, hold_until_ms;
    bool idle;            /* counted as such */
    bool rested;          /* was idle for a while before it was last taken */
    bool to_other;        /* its slot is for another worker */
};

struct h2_pool {
    uint32_t magic;
    const struct origin_conf *conf;
    struct origin_stats *stats;
    struct conn_pool *h1;
    struct choice *choice;
    struct loop *loop;
    struct client_timeouts timeouts;
    struct meter memory;
    struct connect_env env;
    struct slot_member *member;
    unsigned slots_in_hand;
    struct list waiters, connecting, open, retiring;
    unsigned nwaiters, nholding, nconnecting, nopen, nidle; /* nholding: waiters that have a choice */
    unsigned limit; /* of streams on a connection, as last seen; 0: never */
    struct climb climb;
    uint64_t period_bytes, period_from_ms;
    bool period_busy;
    uint64_t connect_after_ms;
    struct task serve;
    struct timer timer;       /* idle connections, holds */
    struct timer climb_timer; /* set while there is much to do */
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void client_changed(void *arg, struct h2_client *client);
static void client_closed(void *arg, struct h2_client *client);
static const struct h2_client_owner conn_owner = {.changed = client_changed, .closed = client_closed};

/* ---- conns and their lists */

static struct h2_link *conn_of(struct list *n)
{
    struct h2_link *c = n ? container_of(n, struct h2_link, link) : NULL;
    if (c) CHECK_OBJ(c, CONN_MAGIC);
    return c;
}

static void spare_tell(struct h2_pool *p)
{
    slots_spare_set(p->member, p->nidle + (p->nwaiters ? 0 : p->nconnecting));
}

/* Whether a conn counts as idle follows from its requests; called wherever they change. */
static void idle_update(struct h2_link *c)
{
    struct h2_pool *p = c->pool;
    bool idle = c->state == CONN_OPEN && h2_client_streams(c->client) == 0;
    if (idle == c->idle) return;
    c->idle = idle;
    p->nidle += idle ? 1 : -1u;
    if (idle) stat_add(&p->stats->conn_idle, 1);
    else stat_sub(&p->stats->conn_idle, 1);
    spare_tell(p);
}

/* Takes c apart; its slot is the caller's to use or release. */
static void conn_free(struct h2_link *c)
{
    struct h2_pool *p = c->pool;
    list_remove(&c->link);
    if (c->state == CONN_CONNECTING) p->nconnecting--;
    if (c->state == CONN_OPEN) p->nopen--;
    c->state = CONN_RETIRING;
    if (c->connector) connector_cancel(c->connector);
    if (c->client) {
        idle_update(c);
        stat_sub(&p->stats->conn_open, 1);
        stat_sub(&p->stats->h2_open, 1);
        h2_client_destroy(c->client);
    }
    spare_tell(p);
    c->magic = 0;
    free(c);
}

static void conn_close(struct h2_link *c)
{
    struct h2_pool *p = c->pool;
    bool to_other = c->to_other;
    conn_free(c);
    if (to_other) slots_release_to_other(p->member);
    else slots_release(p->member);
}

/* No new requests; gone when those on it have ended. */
static void conn_retire(struct h2_link *c)
{
    struct h2_pool *p = c->pool;
    if (c->state != CONN_OPEN) return;
    if (h2_client_streams(c->client) == 0) return conn_close(c);
    list_remove(&c->link);
    list_push_back(&p->retiring, &c->link);
    p->nopen--;
    c->state = CONN_RETIRING;
    idle_update(c);
}

bool h2_link_reused(const struct h2_link *c) { return h2_client_requests(c->client) > 0 || c->rested; }

static void climb_start(struct h2_pool *p);

void h2_link_expect(struct h2_link *c, uint64_t bytes)
{
    c->outstanding += bytes;
    if (c->outstanding >= CLIMB_BUSY_BYTES) climb_start(c->pool);
}

enum err h2_link_send(struct h2_link *c, const struct client_request *req, uint64_t expect_bytes,
                      const struct client_events *ev, void *arg, struct h2_call **out)
{
    CHECK_OBJ(c, CONN_MAGIC);
    enum err e = h2_client_send(c->client, req, expect_bytes, ev, arg, out);
    if (e != ERR_OK) return e;
    idle_update(c);
    h2_link_expect(c, expect_bytes);
    return ERR_OK;
}

void h2_link_got(struct h2_link *c, uint64_t bytes) { c->outstanding -= bytes < c->outstanding ? bytes : c->outstanding; }

void h2_link_refused(struct h2_link *c)
{
    struct h2_pool *p = c->pool;
    stat_add(&p->stats->h2_refused, 1);
    c->hold_until_ms = loop_now_ms(p->loop) + REFUSED_HOLD_MS;
    timer_set(&p->timer, REFUSED_HOLD_MS);
}

/* ---- what the client says */

static void client_changed(void *arg, struct h2_client *client)
{
    struct h2_link *c = arg;
    CHECK_OBJ(c, CONN_MAGIC);
    struct h2_pool *p = c->pool;
    CHECK(c->client == client);
    idle_update(c);
    if (h2_client_limit(client)) p->limit = h2_client_limit(client);
    if (h2_client_streams(client) == 0) c->outstanding = 0;
    if (h2_client_is_over(client)) conn_retire(c);
    else if (c->state == CONN_RETIRING && h2_client_streams(client) == 0) conn_close(c);
    task_schedule(&p->serve);
}

static void client_closed(void *arg, struct h2_client *client)
{
    struct h2_link *c = arg;
    CHECK_OBJ(c, CONN_MAGIC);
    struct h2_pool *p = c->pool;
    CHECK(c->client == client);
    if (h2_client_got_goaway(client)) stat_add(&p->stats->h2_goaways, 1);
    conn_close(c);
    task_schedule(&p->serve);
}

/* ---- waiting */

static struct h2_wait *wait_of(struct list *n) { return n ? container_of(n, struct h2_wait, link) : NULL; }

void h2_wait_init(struct h2_wait *w)
{
    list_init(&w->link);
    w->queued = w->again = w->holds_out = false;
    w->bytes = 0;
}

static void wait_unlink(struct h2_pool *p, struct h2_wait *w)
{
    CHECK(w->queued);
    list_remove(&w->link);
    w->queued = false;
    p->nholding -= w->holds_out;
    w->holds_out = false;
    p->nwaiters--;
    stat_sub(&p->stats->waiting, 1);
    spare_tell(p);
}

/* The open connection with room that has the least to do. Those beyond the climb's target are left to fall idle, as long
 * as one within it has room. */
static struct h2_link *conn_best(struct h2_pool *p)
{
    struct h2_link *best = NULL;
    uint64_t now = loop_now_ms(p->loop);
    unsigned i = 0;
    LIST_EACH_SAFE(n, tmp, &p->open) {
        struct h2_link *c = conn_of(n);
        if (i++ >= p->climb.target && best) break;
        if (now < c->hold_until_ms || h2_client_room(c->client) == 0) continue;
        if (!best || c->outstanding < best->outstanding) best = c;
    }
    return best;
}

static void conn_take(struct h2_link *c)
{
    struct h2_pool *p = c->pool;
    if (c->idle) c->rested = loop_now_ms(p->loop) - h2_client_idle_since_ms(c->client) >= RESTED_MS;
    if (h2_client_requests(c->client) > 0) stat_add(&p->stats->conn_reused, 1);
}

/* Whether a connection that is being opened, or could be, is better for w than the best there is. */
static bool better_waits(const struct h2_pool *p, const struct h2_wait *w, const struct h2_link *best, bool may_begin)
{
    if (w->bytes < CLIMB_BUSY_BYTES || best->outstanding < SPREAD_BYTES || p->nopen >= p->climb.target) return false;
    uint64_t now = loop_now_ms(p->loop);
    if (p->nconnecting) return now < conn_of(p->connecting.next)->began_ms + HOLD_OUT_MS;
    return may_begin && now >= p->connect_after_ms;
}

struct h2_link *h2_pool_get(struct h2_pool *p, struct h2_wait *w)
{
    CHECK_OBJ(p, POOL_MAGIC);
    CHECK(!w->queued && !p->closing);
    struct h2_link *c = p->nwaiters == p->nholding ? conn_best(p) : NULL;
    bool holds_out = c && better_waits(p, w, c, true);
    if (c && !holds_out) {
        conn_take(c);
        return c;
    }
    w->queued = true;
    w->holds_out = holds_out;
    p->nholding += holds_out;
    if (w->again) list_push_front(&p->waiters, &w->link);
    else list_push_back(&p->waiters, &w->link);
    p->nwaiters++;
    stat_add(&p->stats->waiting, 1);
    spare_tell(p);
    task_schedule(&p->serve);
    return NULL;
}

void h2_pool_withdraw(struct h2_pool *p, struct h2_wait *w)
{
    if (!w->queued) return;
    wait_unlink(p, w);
    task_schedule(&p->serve);
}

bool h2_pool_connecting(const struct h2_pool *p) { return p->nconnecting > 0; }

/* Everyone who waits now is told; those who come back meanwhile are not. */
static void waiters_fail(struct h2_pool *p, enum err e)
{
    struct list all;
    list_init(&all);
    list_splice_back(&all, &p->waiters);
    for (struct h2_wait *w; (w = wait_of(list_first(&all))) != NULL;) {
        wait_unlink(p, w);
        w->failed(w, e);
    }
}

/* ---- connecting */

static void count_connect_error(struct origin_stats *st, enum err e)
{
    if (e == ERR_DNS) stat_add(&st->errors_dns, 1);
    else if (e == ERR_TLS) stat_add(&st->errors_tls, 1);
    else if (e == ERR_CONNECT_TIMEOUT) stat_add(&st->errors_timeout, 1);
    else stat_add(&st->errors_connect, 1);
}

/* Those who wait only fail with the last connection there was hope in. */
static void connect_failed(struct h2_link *c, enum err e)
{
    struct h2_pool *p = c->pool;
    count_connect_error(p->stats, e);
    conn_close(c);
    task_schedule(&p->serve);
    p->connect_after_ms = loop_now_ms(p->loop) + FAILED_HOLD_MS;
    timer_set(&p->timer, FAILED_HOLD_MS);
    if (p->nopen == 0 && p->nconnecting == 0) waiters_fail(p, e);
}

/* The connection and its slot go to the pool of HTTP/1.1 connections. */
static void connect_h1_only(struct h2_link *c, struct stream *s)
{
    struct h2_pool *p = c->pool;
    choice_offered(p->choice, false, loop_now_ms(p->loop));
    conn_free(c);
    if (conn_pool_adopt(p->h1, s) != ERR_OK) {
        stream_destroy(s);
        slots_release(p->member);
    }
    task_schedule(&p->serve);
    waiters_fail(p, ERR_NOT_SUPPORTED);
}

static void connect_done(void *arg, enum err e, struct stream *s)
{
    struct h2_link *c = arg;
    CHECK_OBJ(c, CONN_MAGIC);
    struct h2_pool *p = c->pool;
    c->connector = NULL;
    if (e == ERR_OK && p->h1 && strcmp(stream_alpn(s), "h2") != 0) return connect_h1_only(c, s);
    if (e == ERR_OK) e = h2_client_create(s, &response_limits, &p->timeouts, p->limit, &conn_owner, c, &c->client);
    if (e != ERR_OK) {
        if (s) stream_destroy(s);
        c->client = NULL;
        return connect_failed(c, e);
    }
    h2_client_set_meter(c->client, p->memory);
    choice_offered(p->choice, true, loop_now_ms(p->loop));
    list_remove(&c->link);
    p->nconnecting--;
    list_push_back(&p->open, &c->link);
    p->nopen++;
    c->state = CONN_OPEN;
    c->opened_ms = loop_now_ms(p->loop);
    stat_add(&p->stats->conn_open, 1);
    stat_add(&p->stats->conn_created, 1);
    stat_add(&p->stats->h2_open, 1);
    idle_update(c);
    spare_tell(p);
    task_schedule(&p->serve);
}

/* Uses a slot in hand. */
static enum err connect_start(struct h2_pool *p)
{
    struct h2_link *c = calloc(1, sizeof *c);
    if (!c) return ERR_NOMEM;
    c->magic = CONN_MAGIC;
    c->pool = p;
    c->state = CONN_CONNECTING;
    c->began_ms = loop_now_ms(p->loop);
    enum err e = connector_start(&p->env, connect_done, c, &c->connector);
    if (e != ERR_OK) {
        free(c);
        return e;
    }
    list_push_back(&p->connecting, &c->link);
    p->nconnecting++;
    p->slots_in_hand--;
    spare_tell(p);
    return ERR_OK;
}

/* ---- serving */

/* The first who does not rather wait. */
static struct h2_wait *waiter_for(struct h2_pool *p, const struct h2_link *best, bool may_begin)
{
    for (struct list *n = p->waiters.next; n != &p->waiters; n = n->next) {
        struct h2_wait *w = wait_of(n);
        bool holds_out = better_waits(p, w, best, may_begin);
        p->nholding += (unsigned)holds_out - (unsigned)w->holds_out;
        w->holds_out = holds_out;
        if (!holds_out) return w;
    }
    return NULL;
}

/* may_begin: connections are going to be opened. */
static void serve_waiters(struct h2_pool *p, bool may_begin)
{
    while (!p->closing && !list_empty(&p->waiters)) {
        struct h2_link *c = conn_best(p);
        struct h2_wait *w = c ? waiter_for(p, c, may_begin) : NULL;
        if (!w) return;
        wait_unlink(p, w);
        conn_take(c);
        w->ready(w, c);
    }
}

/* When those who wait are told no: every connection is open and allows no request (MAX_CONCURRENT_STREAMS 0). More of them
 * would hardly be better. 0: it is not so. */
static uint64_t denied_until_ms(const struct h2_pool *p)
{
    uint64_t until = 0;
    for (struct list *n = p->open.next; n != &p->open; n = n->next) {
        const struct h2_link *c = conn_of(n);
        if (!h2_client_admits_none(c->client)) return 0;
        if (c->opened_ms + DENIED_MS > until) until = c->opened_ms + DENIED_MS;
    }
    return until;
}

/* How many connects would help those who wait, and the climb. */
static unsigned connects_wanted(const struct h2_pool *p)
{
    unsigned room = p->limit && p->limit < ROOM_GUESS ? p->limit : ROOM_GUESS;
    unsigned wanted = (p->nwaiters - p->nholding + room - 1) / room;
    uint64_t outstanding = 0;
    /* Nobody knows yet whether this origin speaks h2: one connection finds out. */
    if (p->nopen == 0 && wanted > 1) wanted = 1;
    if (p->nopen && (loop_now_ms(p->loop) < p->connect_after_ms || denied_until_ms(p))) return 0;
    for (struct list *n = p->open.next; n != &p->open; n = n->next) outstanding += conn_of(n)->outstanding;
    uint64_t load = p->climb.before ? CLIMB_BUSY_BYTES : SPREAD_BYTES; /* small objects share what there is */
    bool busy = p->nholding || (p->nopen && outstanding >= p->nopen * load);
    if (busy && p->nopen < p->climb.target && wanted < p->climb.target - p->nopen) wanted = p->climb.target - p->nopen;
    return wanted > p->nconnecting ? wanted - p->nconnecting : 0;
}

static bool slot_take(struct h2_pool *p)
{
    if (p->slots_in_hand == 0 && slots_acquire(p->member)) p->slots_in_hand = 1;
    return p->slots_in_hand > 0;
}

/* Only those who wait without any connection to hope for stand in line for a slot; what the climb would like to have and
 * cannot get is none of the others' business. */
static void start_connects(struct h2_pool *p)
{
    bool in_line = false;
    for (unsigned k = p->closing ? 0 : connects_wanted(p); k; k--) {
        if (!slot_take(p)) {
            in_line = p->nwaiters > p->nholding;
            if (!in_line) climb_stop(&p->climb, loop_now_ms(p->loop), p->nopen);
            break;
        }
        enum err e = connect_start(p);
        if (e == ERR_OK) continue;
        if (p->nopen == 0 && p->nconnecting == 0) waiters_fail(p, e);
        break;
    }
    if (!in_line) slots_step_out(p->member);
}

static struct h2_link *conn_idle_oldest(struct h2_pool *p)
{
    for (struct list *n = p->open.prev; n != &p->open; n = n->prev)
        if (conn_of(n)->idle) return conn_of(n);
    return NULL;
}

/* The one with the least to do retires when another pool has waited too long, but not right after it was opened. */
static void yield_one(struct h2_pool *p)
{
    struct h2_link *least = NULL;
    uint64_t now = loop_now_ms(p->loop);
    if (!list_empty(&p->retiring) || !slots_must_yield(p->member)) return;
    for (struct list *n = p->open.next; n != &p->open; n = n->next) {
        struct h2_link *c = conn_of(n);
        if (now - c->opened_ms < TENURE_MS) continue;
        if (!least || h2_client_streams(c->client) < h2_client_streams(least->client)) least = c;
    }
    if (!least) return;
    least->to_other = true;
    conn_retire(least);
}

static void give_up_spares(struct h2_pool *p)
{
    while (slots_others_wait(p->member)) {
        struct h2_link *c = conn_idle_oldest(p);
        if (!c && p->nwaiters == 0) c = conn_of(list_last(&p->connecting));
        if (!c) break;
        conn_free(c);
        slots_release_to_other(p->member);
    }
    if (p->nopen) yield_one(p);
}

/* ---- time */

static void idle_expire(struct h2_pool *p)
{
    uint64_t now = loop_now_ms(p->loop), next = UINT64_MAX;
    if (p->nholding && p->nconnecting) next = conn_of(p->connecting.next)->began_ms + HOLD_OUT_MS;
    if (p->nwaiters && now < p->connect_after_ms && p->connect_after_ms < next) next = p->connect_after_ms;
    if (p->nwaiters && denied_until_ms(p) && denied_until_ms(p) < next) next = denied_until_ms(p);
    LIST_EACH_SAFE(n, tmp, &p->open) {
        struct h2_link *c = conn_of(n);
        uint64_t due = h2_client_idle_since_ms(c->client) + p->conf->idle_timeout_ms;
        if (now < c->hold_until_ms && c->hold_until_ms < next) next = c->hold_until_ms;
        if (!c->idle) continue;
        if (now >= due) conn_close(c);
        else if (due < next) next = due;
    }
    if (next == UINT64_MAX) timer_stop(&p->timer);
    else timer_set(&p->timer, next > now ? next - now : 0);
}

static void pool_due(struct timer *t)
{
    struct h2_pool *p = container_of(t, struct h2_pool, timer);
    idle_expire(p);
    task_schedule(&p->serve);
}

/* Every connection has enough to do: more of them might get more through. */
static bool load_is_high(const struct h2_pool *p)
{
    for (struct list *n = p->open.next; n != &p->open; n = n->next)
        if (conn_of(n)->outstanding < CLIMB_BUSY_BYTES) return false;
    return p->nopen > 0;
}

static uint64_t received(const struct h2_pool *p)
{
    uint64_t bytes = 0;
    for (struct list *n = p->open.next; n != &p->open; n = n->next)
        bytes += h2_client_received_bytes(conn_of(n)->client);
    return bytes;
}

static void climb_start(struct h2_pool *p)
{
    if (p->climb_timer.due_ms || p->closing) return;
    p->period_from_ms = loop_now_ms(p->loop);
    p->period_bytes = received(p);
    p->period_busy = load_is_high(p);
    timer_set(&p->climb_timer, CLIMB_PERIOD_MS);
}

static void climb_due(struct timer *t)
{
    struct h2_pool *p = container_of(t, struct h2_pool, climb_timer);
    CHECK_OBJ(p, POOL_MAGIC);
    uint64_t now = loop_now_ms(p->loop), bytes = received(p);
    bool high = load_is_high(p), any = false;
    uint64_t got = bytes > p->period_bytes ? bytes - p->period_bytes : 0; /* less: a connection has gone */
    climb_period(&p->climb, now, p->nopen, got, now - p->period_from_ms, high && p->period_busy && got);
    for (struct list *n = p->open.next; n != &p->open; n = n->next) any |= conn_of(n)->outstanding > 0;
    if (any) climb_start(p);
    task_schedule(&p->serve);
}

static void deny_waiters(struct h2_pool *p)
{
    uint64_t until = denied_until_ms(p);
    if (!until || p->nconnecting) return;
    if (loop_now_ms(p->loop) >= until) return waiters_fail(p, ERR_OVERLOAD);
    idle_expire(p); /* sets the timer */
}

/* Those who would rather wait: for a while, and not in vain. */
static void hold_outs(struct h2_pool *p)
{
    if (p->nconnecting == 0) serve_waiters(p, false);
    if (p->nholding) idle_expire(p); /* sets the timer */
}

/* ---- life */

static void pool_finish(struct h2_pool *p);

static void pool_serve(struct task *t)
{
    struct h2_pool *p = container_of(t, struct h2_pool, serve);
    CHECK_OBJ(p, POOL_MAGIC);
    serve_waiters(p, true);
    if (p->nwaiters) deny_waiters(p);
    start_connects(p);
    if (p->nholding) hold_outs(p);
    for (; p->slots_in_hand; p->slots_in_hand--) slots_release(p->member);
    give_up_spares(p);
    if (p->nidle && p->timer.due_ms == 0) idle_expire(p);
    if (p->closing) pool_finish(p);
}

static void pool_wake(void *arg)
{
    struct h2_pool *p = arg;
    CHECK_OBJ(p, POOL_MAGIC);
    p->slots_in_hand += slots_collect(p->member);
    task_schedule(&p->serve);
}

static void zombie_gone(void *arg)
{
    struct h2_pool *p = arg;
    task_schedule(&p->serve);
}

enum err h2_pool_create(const struct conn_pool_conf *c, struct conn_pool *h1, struct choice *choice,
                        struct h2_pool **out)
{
    const struct origin_conf *oc = c->conf;
    struct h2_pool *p = calloc(1, sizeof *p);
    if (!p) return ERR_NOMEM;
    p->magic = POOL_MAGIC;
    p->conf = oc;
    p->stats = c->stats;
    p->h1 = h1;
    p->choice = choice;
    p->memory = c->memory;
    p->loop = mailbox_loop(c->mailbox);
    p->timeouts = (struct client_timeouts){.connect_ms = oc->connect_ms,
                                           .tls_ms = oc->tls_ms,
                                           .first_byte_ms = oc->first_byte_ms,
                                           .stall_ms = oc->stall_ms};
    p->env = (struct connect_env){.loop = p->loop,
                                  .mailbox = c->mailbox,
                                  .dns = c->dns,
                                  .tls = c->tls,
                                  .server_name = c->server_name,
                                  .name = oc->name ? oc->name : "",
                                  .connect_ms = oc->connect_ms,
                                  .tls_ms = oc->tls_ms,
                                  .peer_speaks_first = true,
                                  .zombie_gone = zombie_gone,
                                  .arg = p};
    list_init(&p->waiters);
    list_init(&p->connecting);
    list_init(&p->open);
    list_init(&p->retiring);
    climb_init(&p->climb, START_CONNS, oc->connections_max > UINT16_MAX ? UINT16_MAX : (unsigned)oc->connections_max);
    task_init(&p->serve, p->loop, pool_serve);
    timer_init(&p->timer, p->loop, pool_due);
    timer_init(&p->climb_timer, p->loop, climb_due);
    p->member = slots_join(c->slots, c->index, c->mailbox, pool_wake, p);
    *out = p;
    return ERR_OK;
}

static void close_list(struct list *conns)
{
    LIST_EACH_SAFE(n, tmp, conns)
        if (!conn_of(n)->client || h2_client_streams(conn_of(n)->client) == 0) conn_close(conn_of(n));
}

void h2_pool_close(struct h2_pool *p, void (*done)(void *arg), void *arg)
{
    CHECK_OBJ(p, POOL_MAGIC);
    CHECK(!p->closing && list_empty(&p->waiters));
    p->closing = true;
    p->closed = done;
    p->closed_arg = arg;
    close_list(&p->open);
    close_list(&p->connecting);
    close_list(&p->retiring);
    task_schedule(&p->serve);
}

static void pool_finish(struct h2_pool *p)
{
    if (!list_empty(&p->open) || !list_empty(&p->connecting) || !list_empty(&p->retiring) || p->env.zombies) return;
    if (!slots_leave(p->member)) return; /* the mail on its way schedules us again */
    timer_stop(&p->timer);
    timer_stop(&p->climb_timer);
    task_cancel(&p->serve);
    void (*done)(void *) = p->closed;
    void *arg = p->closed_arg;
    p->magic = 0;
    free(p);
    done(arg);
}
