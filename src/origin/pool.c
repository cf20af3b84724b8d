/* pool.c - see the header.
 *
 *   a conn is  | in the list | holds               | leaves by
 *   CONNECTING | connecting  | slot, connector     | idle, or gone when the connect failed
 *   IDLE       | idle (MRU)  | slot, h1 client     | busy; gone: timeout, closed by the peer, given up for other workers
 *   BUSY       | busy        | slot, h1 client     | released by the h1 client: idle or gone
 *
 * All decisions are made in pool_serve, which runs as a task after whatever changed something: so a call that ends and
 * submits the next one from its end() finds the connection it has just freed, and callers are never called from inside
 * their own calls. Callbacks made by pool_serve may submit, cancel and withdraw: it looks at the lists afresh after each. */
#include "origin/pool.h"

#include <stdlib.h>

#include "base/log.h"

#define POOL_MAGIC 0x706f6f63u
#define CONN_MAGIC 0x636f6e6eu

/* An unused connection younger than this was not closed for idleness. */
#define RESTED_MS 100
/* Response heads of origins: x-amz-meta-* may be 2 KiB, CDNs add a lot. */
static const struct h1_limits response_limits = {.head_bytes = 65536, .target_bytes = 8192, .headers = 256};

enum conn_state { CONN_CONNECTING, CONN_IDLE, CONN_BUSY };
struct conn {
    uint32_t magic;
    enum conn_state state;
    struct conn_pool *pool;
    struct list link;
    struct connector *connector;
    struct conn_wait *waiter; /* CONNECTING: for whom; NULL: spare */
    struct h1_client *h1;
    uint64_t uses;
    uint64_t idle_since_ms;
    bool rested; /* was idle for a while before it was taken */
};

struct conn_pool {
    uint32_t magic;
    const struct origin_conf *conf;
    struct origin_stats *stats;
    struct loop *loop;
    struct client_timeouts timeouts;
    struct connect_env env;
    struct slot_member *member;
    unsigned slots_in_hand; /* taken, not yet used for a conn */
    struct list waiters, connecting, idle, busy;
    unsigned nidle, nspare; /* nspare: CONNECTING for nobody */
    struct task serve;
    struct timer idle_timer;
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void conn_released(void *arg, struct h1_client *h1, bool reusable);
static void conn_idle_closed(void *arg, struct h1_client *h1);
static const struct h1_client_owner conn_owner = {.released = conn_released, .idle_closed = conn_idle_closed};

/* ---- conns and their lists */

static void spare_tell(struct conn_pool *p) { slots_spare_set(p->member, p->nidle + p->nspare); }

static struct conn *conn_of(struct list *n)
{
    struct conn *c = n ? container_of(n, struct conn, link) : NULL;
    if (c) CHECK_OBJ(c, CONN_MAGIC);
    return c;
}

static void idle_add(struct conn *c)
{
    struct conn_pool *p = c->pool;
    c->state = CONN_IDLE;
    c->idle_since_ms = loop_now_ms(p->loop);
    list_push_front(&p->idle, &c->link);
    p->nidle++;
    stat_add(&p->stats->conn_idle, 1);
    spare_tell(p);
}

static void idle_remove(struct conn *c)
{
    struct conn_pool *p = c->pool;
    CHECK(c->state == CONN_IDLE && p->nidle > 0);
    list_remove(&c->link);
    p->nidle--;
    stat_sub(&p->stats->conn_idle, 1);
    spare_tell(p);
}

static void conn_bind(struct conn *c, struct conn_wait *w)
{
    struct conn_pool *p = c->pool;
    CHECK(c->state == CONN_CONNECTING);
    if (c->waiter) c->waiter->connecting = NULL;
    if (c->waiter && !w) p->nspare++;
    if (!c->waiter && w) p->nspare--;
    c->waiter = w;
    spare_tell(p);
    if (w) w->connecting = c;
}

/* Takes c apart; its slot is the caller's to use or release. */
static void conn_free(struct conn *c)
{
    struct conn_pool *p = c->pool;
    if (c->state == CONN_CONNECTING) {
        conn_bind(c, NULL);
        p->nspare--;
        spare_tell(p);
    }
    if (c->state == CONN_IDLE)
        idle_remove(c);
    else
        list_remove(&c->link);
    if (c->connector) connector_cancel(c->connector);
    if (c->h1) {
        stat_sub(&p->stats->conn_open, 1);
        h1_client_destroy(c->h1);
    }
    c->magic = 0;
    free(c);
}

static void conn_close(struct conn *c)
{
    struct conn_pool *p = c->pool;
    conn_free(c);
    slots_release(p->member);
}

struct h1_client *conn_h1(const struct conn *c) { return c->h1; }

bool conn_reused(const struct conn *c) { return c->uses > 1 || c->rested; }

static void conn_checkout(struct conn *c)
{
    struct conn_pool *p = c->pool;
    idle_remove(c);
    c->rested = loop_now_ms(p->loop) - c->idle_since_ms >= RESTED_MS;
    c->state = CONN_BUSY;
    list_push_back(&p->busy, &c->link);
    c->uses++;
    if (c->uses > 1) stat_add(&p->stats->conn_reused, 1);
}

/* ---- what the h1 client says */

static void conn_released(void *arg, struct h1_client *h1, bool reusable)
{
    struct conn *c = arg;
    CHECK_OBJ(c, CONN_MAGIC);
    struct conn_pool *p = c->pool;
    CHECK(c->h1 == h1 && c->state == CONN_BUSY);
    if (!reusable || p->closing) {
        conn_close(c);
    } else {
        list_remove(&c->link);
        idle_add(c);
    }
    task_schedule(&p->serve);
}

static void conn_idle_closed(void *arg, struct h1_client *h1)
{
    struct conn *c = arg;
    CHECK_OBJ(c, CONN_MAGIC);
    struct conn_pool *p = c->pool;
    CHECK(c->h1 == h1 && c->state == CONN_IDLE);
    conn_close(c);
    task_schedule(&p->serve);
}

/* ---- waiting */

static struct conn_wait *wait_of(struct list *n) { return n ? container_of(n, struct conn_wait, link) : NULL; }

/* Out of the queue; a connect under way for it becomes spare. */
static void wait_unlink(struct conn_pool *p, struct conn_wait *w)
{
    CHECK(w->queued);
    list_remove(&w->link);
    w->queued = false;
    stat_sub(&p->stats->waiting, 1);
    if (w->connecting) conn_bind(w->connecting, NULL);
}

void conn_wait_init(struct conn_wait *w)
{
    list_init(&w->link);
    w->connecting = NULL;
    w->queued = false;
    w->fresh = false;
}

bool conn_wait_connecting(const struct conn_wait *w) { return w->connecting != NULL; }

struct conn *conn_pool_get(struct conn_pool *p, struct conn_wait *w)
{
    CHECK_OBJ(p, POOL_MAGIC);
    CHECK(!w->queued && !p->closing);
    struct conn *c = conn_of(list_first(&p->idle));
    /* With others in line the serving task must decide who gets it. */
    if (c && !w->fresh && list_empty(&p->waiters) && !slots_others_wait(p->member)) {
        conn_checkout(c);
        return c;
    }
    w->queued = true;
    w->connecting = NULL;
    if (w->fresh) /* it has waited before */
        list_push_front(&p->waiters, &w->link);
    else
        list_push_back(&p->waiters, &w->link);
    stat_add(&p->stats->waiting, 1);
    task_schedule(&p->serve);
    return NULL;
}

void conn_pool_withdraw(struct conn_pool *p, struct conn_wait *w)
{
    if (!w->queued) return;
    wait_unlink(p, w);
    task_schedule(&p->serve);
}

void conn_pool_put(struct conn_pool *p, struct conn *c)
{
    CHECK_OBJ(c, CONN_MAGIC);
    CHECK(c->state == CONN_BUSY);
    list_remove(&c->link);
    idle_add(c);
    task_schedule(&p->serve);
}

/* ---- connecting */

static void count_connect_error(struct origin_stats *st, enum err e)
{
    if (e == ERR_DNS)
        stat_add(&st->errors_dns, 1);
    else if (e == ERR_TLS)
        stat_add(&st->errors_tls, 1);
    else if (e == ERR_CONNECT_TIMEOUT)
        stat_add(&st->errors_timeout, 1);
    else
        stat_add(&st->errors_connect, 1);
}

static void connect_failed(struct conn *c, enum err e)
{
    struct conn_pool *p = c->pool;
    struct conn_wait *w = c->waiter;
    count_connect_error(p->stats, e);
    conn_close(c);
    task_schedule(&p->serve);
    if (!w) return;
    wait_unlink(p, w);
    w->failed(w, e);
}

static void conn_opened(struct conn *c)
{
    struct conn_pool *p = c->pool;
    stat_add(&p->stats->conn_open, 1);
    stat_add(&p->stats->conn_created, 1);
    idle_add(c);
    task_schedule(&p->serve);
}

static void connect_done(void *arg, enum err e, struct stream *s)
{
    struct conn *c = arg;
    CHECK_OBJ(c, CONN_MAGIC);
    struct conn_pool *p = c->pool;
    c->connector = NULL;
    if (e == ERR_OK) e = h1_client_create(s, &response_limits, &p->timeouts, &conn_owner, c, &c->h1);
    if (e != ERR_OK) {
        if (s) stream_destroy(s);
        c->h1 = NULL;
        connect_failed(c, e);
        return;
    }
    struct conn_wait *w = c->waiter;
    conn_bind(c, NULL);
    p->nspare--;
    list_remove(&c->link);
    conn_opened(c);
    if (w && w->fresh) { /* the others are served in their order */
        wait_unlink(p, w);
        conn_checkout(c);
        w->ready(w, c);
    }
}

enum err conn_pool_adopt(struct conn_pool *p, struct stream *s)
{
    CHECK_OBJ(p, POOL_MAGIC);
    if (p->closing) return ERR_CANCELLED;
    struct conn *c = calloc(1, sizeof *c);
    if (!c) return ERR_NOMEM;
    c->magic = CONN_MAGIC;
    c->pool = p;
    list_init(&c->link);
    enum err e = h1_client_create(s, &response_limits, &p->timeouts, &conn_owner, c, &c->h1);
    if (e != ERR_OK) {
        free(c);
        return e;
    }
    conn_opened(c);
    return ERR_OK;
}

/* Uses a slot in hand. */
static enum err connect_start(struct conn_pool *p, struct conn_wait *w)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c) return ERR_NOMEM;
    c->magic = CONN_MAGIC;
    c->pool = p;
    c->state = CONN_CONNECTING;
    enum err e = connector_start(&p->env, connect_done, c, &c->connector);
    if (e != ERR_OK) {
        free(c);
        return e;
    }
    list_push_back(&p->connecting, &c->link);
    p->nspare++;
    conn_bind(c, w);
    p->slots_in_hand--;
    return ERR_OK;
}

/* ---- serving */

static struct conn_wait *first_waiter(struct conn_pool *p, bool fresh)
{
    LIST_EACH_SAFE(n, tmp, &p->waiters)
        if (wait_of(n)->fresh == fresh) return wait_of(n);
    return NULL;
}

/* The fresh are handed theirs in connect_done. */
static void serve_from_idle(struct conn_pool *p)
{
    while (!p->closing && !list_empty(&p->idle)) {
        struct conn_wait *w = first_waiter(p, false);
        if (!w) return;
        struct conn *oldest = conn_of(list_last(&p->idle));
        if (oldest->uses > 0 && slots_must_yield(p->member)) {
            conn_free(oldest);
            slots_release_to_other(p->member);
            continue;
        }
        struct conn *c = conn_of(list_first(&p->idle));
        wait_unlink(p, w);
        conn_checkout(c);
        w->ready(w, c);
    }
}

static struct conn *first_spare(struct conn_pool *p)
{
    LIST_EACH_SAFE(n, tmp, &p->connecting)
        if (!conn_of(n)->waiter) return conn_of(n);
    return NULL;
}

static bool slot_take(struct conn_pool *p)
{
    if (p->slots_in_hand == 0 && slots_acquire(p->member)) p->slots_in_hand = 1;
    return p->slots_in_hand > 0;
}

/* What is idle here now is no use to those who wait here (they want fresh ones): its slot is. */
static bool slot_from_idle(struct conn_pool *p)
{
    struct conn *c = conn_of(list_last(&p->idle));
    if (!c) return false;
    conn_free(c);
    p->slots_in_hand++;
    return true;
}

/* A connect for everyone who waits, as far as slots reach. */
static void start_connects(struct conn_pool *p)
{
    bool in_line = false;
    struct list *n = p->waiters.next;
    while (!p->closing && n != &p->waiters) {
        struct conn_wait *w = wait_of(n);
        struct conn *spare;
        n = n->next;
        if (w->connecting) continue;
        if ((spare = first_spare(p)) != NULL) {
            conn_bind(spare, w);
            continue;
        }
        if (!slot_take(p) && !slot_from_idle(p)) {
            in_line = true;
            break;
        }
        enum err e = connect_start(p, w);
        if (e == ERR_OK) continue;
        wait_unlink(p, w);
        w->failed(w, e);
        n = p->waiters.next; /* anything may have changed */
    }
    if (!in_line) slots_step_out(p->member);
}

static void give_up_spares(struct conn_pool *p)
{
    while ((p->nidle || p->nspare) && slots_others_wait(p->member)) {
        struct conn *c = conn_of(list_last(&p->idle));
        if (!c) c = first_spare(p);
        conn_free(c);
        slots_release_to_other(p->member);
    }
}

static void idle_expire(struct conn_pool *p)
{
    uint64_t now = loop_now_ms(p->loop);
    struct conn *c;
    while ((c = conn_of(list_last(&p->idle))) != NULL && now - c->idle_since_ms >= p->conf->idle_timeout_ms)
        conn_close(c);
    if (c)
        timer_set(&p->idle_timer, c->idle_since_ms + p->conf->idle_timeout_ms - now);
    else
        timer_stop(&p->idle_timer);
}

static void idle_due(struct timer *t) { idle_expire(container_of(t, struct conn_pool, idle_timer)); }

static void pool_finish(struct conn_pool *p);

static void pool_serve(struct task *t)
{
    struct conn_pool *p = container_of(t, struct conn_pool, serve);
    CHECK_OBJ(p, POOL_MAGIC);
    serve_from_idle(p);
    start_connects(p);
    for (; p->slots_in_hand; p->slots_in_hand--) slots_release(p->member);
    give_up_spares(p);
    if (p->nidle && p->idle_timer.due_ms == 0) idle_expire(p);
    if (p->closing) pool_finish(p);
}

static void pool_wake(void *arg)
{
    struct conn_pool *p = arg;
    CHECK_OBJ(p, POOL_MAGIC);
    p->slots_in_hand += slots_collect(p->member);
    task_schedule(&p->serve);
}

/* ---- life */

static void zombie_gone(void *arg)
{
    struct conn_pool *p = arg;
    task_schedule(&p->serve);
}

enum err conn_pool_create(const struct conn_pool_conf *c, struct conn_pool **out)
{
    const struct origin_conf *oc = c->conf;
    struct conn_pool *p = calloc(1, sizeof *p);
    if (!p) return ERR_NOMEM;
    p->magic = POOL_MAGIC;
    p->conf = oc;
    p->stats = c->stats;
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
                                  .zombie_gone = zombie_gone,
                                  .arg = p};
    list_init(&p->waiters);
    list_init(&p->connecting);
    list_init(&p->idle);
    list_init(&p->busy);
    task_init(&p->serve, p->loop, pool_serve);
    timer_init(&p->idle_timer, p->loop, idle_due);
    p->member = slots_join(c->slots, c->index, c->mailbox, pool_wake, p);
    *out = p;
    return ERR_OK;
}

void conn_pool_discard(struct conn_pool *p)
{
    CHECK_OBJ(p, POOL_MAGIC);
    CHECK(list_empty(&p->idle) && list_empty(&p->busy) && list_empty(&p->connecting));
    CHECK(slots_leave(p->member)); /* no mail can be on its way to one that had nothing to spare */
    p->magic = 0;
    free(p);
}

void conn_pool_close(struct conn_pool *p, void (*done)(void *arg), void *arg)
{
    CHECK_OBJ(p, POOL_MAGIC);
    CHECK(!p->closing && list_empty(&p->waiters));
    p->closing = true;
    p->closed = done;
    p->closed_arg = arg;
    while (!list_empty(&p->idle)) conn_close(conn_of(list_first(&p->idle)));
    while (!list_empty(&p->connecting)) conn_close(conn_of(list_first(&p->connecting)));
    task_schedule(&p->serve);
}

static void pool_finish(struct conn_pool *p)
{
    if (!list_empty(&p->busy) || p->env.zombies) return; /* their ends schedule us again */
    if (!slots_leave(p->member)) return;                 /* so does the mail on its way */
    timer_stop(&p->idle_timer);
    task_cancel(&p->serve);
    void (*done)(void *) = p->closed;
    void *arg = p->closed_arg;
    p->magic = 0;
    free(p);
    done(arg);
}
