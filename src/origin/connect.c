/* connect.c - see the header for what a connector does.
 *
 *   phase      | under way                                    | ends by
 *   RESOLVING  | the dns_wait, the deadline                   | dns_wait.done
 *   CONNECTING | up to ATTEMPTS_MAX streams, deadline, stagger | a stream that connects, the last that fails
 *   SHAKING    | one stream, the deadline (now of TLS)        | stream_handshake
 *   REPORTING  | the task                                     | fn
 *
 * A connector cancelled while its lookup result is in the mailbox stays as a zombie until that is delivered. */
#include "origin/connect.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define CONNECTOR_MAGIC 0x636e6374u
#define ATTEMPTS_MAX 4
#define STAGGER_MS 250
#define WARN_EVERY_MS 1000

enum phase { RESOLVING, CONNECTING, SHAKING, REPORTING, ZOMBIE };

struct attempt {
    struct connector *owner;
    struct stream *stream; /* NULL: free */
    unsigned address;
};
struct connector {
    uint32_t magic;
    enum phase phase;
    struct connect_env *env;
    connect_fn *fn;
    void *arg;
    struct dns_wait lookup;
    bool answer_due; /* the time was up while the lookup's answer was in the mailbox */
    unsigned next;   /* address to be tried next */
    struct attempt attempts[ATTEMPTS_MAX];
    unsigned live;
    struct stream *stream; /* the winner */
    unsigned winner;       /* its address */
    struct timer deadline, stagger;
    struct task report;
    enum err result;
};

static void address_try(struct connector *c);

static const struct address *address_at(const struct connector *c, unsigned i) { return &c->lookup.list.at[i]; }

static void attempts_drop(struct connector *c)
{
    for (unsigned i = 0; i < ATTEMPTS_MAX; i++) {
        if (c->attempts[i].stream) stream_destroy(c->attempts[i].stream);
        c->attempts[i].stream = NULL;
    }
    c->live = 0;
}

static void connector_stop(struct connector *c)
{
    timer_stop(&c->deadline);
    timer_stop(&c->stagger);
    task_cancel(&c->report);
    attempts_drop(c);
    if (c->stream) stream_destroy(c->stream);
    c->stream = NULL;
}

static void connector_free(struct connector *c)
{
    c->magic = 0;
    free(c);
}

/* Always through the task: nobody is called back from inside start, nor while a stream's callback is still on the stack. */
static void connector_report(struct connector *c, enum err e)
{
    timer_stop(&c->deadline);
    timer_stop(&c->stagger);
    attempts_drop(c);
    if (e != ERR_OK && c->stream) {
        stream_destroy(c->stream);
        c->stream = NULL;
    }
    c->result = e;
    c->phase = REPORTING;
    task_schedule(&c->report);
}

static bool may_speak_first(const struct connect_env *env, const struct stream *s)
{
    return env->peer_speaks_first && (!env->tls || strcmp(stream_alpn(s), "http/1.1") != 0);
}

static void connector_report_now(struct task *t)
{
    struct connector *c = container_of(t, struct connector, report);
    CHECK_OBJ(c, CONNECTOR_MAGIC);
    connect_fn *fn = c->fn;
    void *arg = c->arg;
    enum err e = c->result;
    struct stream *s = c->stream;
    const struct connect_env *env = c->env;
    connector_free(c);
    /* The edge that told of the connect may have told of an early end as well, and will not come again. */
    if (e == ERR_OK && !may_speak_first(env, s) && stream_idle_broken(s)) {
        stream_destroy(s);
        s = NULL;
        e = ERR_CLOSED;
    }
    fn(arg, e, s);
}

/* Those that did not fail of late are preferred from now on. */
static void address_failed(struct connector *c, unsigned i, const char *why)
{
    struct connect_env *env = c->env;
    const struct address *a = address_at(c, i);
    char text[64];
    uint64_t now = loop_now_ms(env->loop);
    dns_mark(env->dns, a, false);
    if (env->warned_ms && now - env->warned_ms < WARN_EVERY_MS) return;
    env->warned_ms = now;
    log_warn("origin %s: %s: %s", env->name, address_format((const struct sockaddr *)&a->ss, text, sizeof text), why);
}

/* ---- TLS */

static void handshake_failed(struct connector *c, enum err e)
{
    address_failed(c, c->winner, stream_error(c->stream));
    connector_report(c, e);
}

static void handshake_ready(struct stream *s, unsigned ready, void *arg)
{
    struct connector *c = arg;
    (void)ready;
    CHECK_OBJ(c, CONNECTOR_MAGIC);
    if (c->phase != SHAKING) return; /* READY events of a stream that waits for its report */
    enum err e = stream_handshake(s);
    if (e == ERR_AGAIN) return;
    if (e == ERR_OK)
        connector_report(c, ERR_OK);
    else
        handshake_failed(c, e == ERR_NOMEM ? e : ERR_TLS);
}

/* ---- TCP */

static void connected(struct connector *c, struct attempt *a)
{
    c->stream = a->stream;
    c->winner = a->address;
    a->stream = NULL;
    timer_stop(&c->stagger);
    attempts_drop(c);
    dns_mark(c->env->dns, address_at(c, c->winner), true);
    if (!c->env->tls) {
        stream_set_callback(c->stream, handshake_ready, c);
        connector_report(c, ERR_OK);
        return;
    }
    c->phase = SHAKING;
    timer_set(&c->deadline, c->env->tls_ms);
    stream_set_callback(c->stream, handshake_ready, c);
    enum err e = stream_tls_client(c->stream, c->env->tls, c->env->server_name);
    if (e == ERR_OK)
        handshake_ready(c->stream, READY_WRITE, c);
    else
        handshake_failed(c, e == ERR_NOMEM ? e : ERR_TLS);
}

static void attempt_ready(struct stream *s, unsigned ready, void *arg)
{
    struct attempt *a = arg;
    struct connector *c = a->owner;
    (void)ready;
    CHECK_OBJ(c, CONNECTOR_MAGIC);
    enum err e = stream_connect_result(s);
    if (e == ERR_AGAIN) return;
    if (e == ERR_OK) {
        connected(c, a);
        return;
    }
    a->stream = NULL;
    c->live--;
    stream_destroy(s);
    c->result = e;
    address_failed(c, a->address, err_text(e));
    address_try(c);
}

static struct attempt *attempt_free(struct connector *c)
{
    for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
        if (!c->attempts[i].stream) return &c->attempts[i];
    return NULL;
}

/* Starts with the next address that takes a connect at all; reports when nothing is left. */
static void address_try(struct connector *c)
{
    struct attempt *a = attempt_free(c);
    while (a && c->next < c->lookup.list.n) {
        const struct address *to = address_at(c, c->next);
        a->owner = c;
        a->address = c->next++;
        enum err e =
            stream_connect(c->env->loop, (const struct sockaddr *)&to->ss, to->len, attempt_ready, a, &a->stream);
        if (e == ERR_OK) {
            c->live++;
            if (c->next < c->lookup.list.n) timer_set(&c->stagger, STAGGER_MS);
            return;
        }
        a->stream = NULL;
        c->result = e;
        address_failed(c, a->address, err_text(e));
    }
    if (c->live == 0) connector_report(c, c->result);
}

static void stagger_due(struct timer *t) { address_try(container_of(t, struct connector, stagger)); }

static void deadline_due(struct timer *t)
{
    struct connector *c = container_of(t, struct connector, deadline);
    CHECK_OBJ(c, CONNECTOR_MAGIC);
    if (c->phase == SHAKING) {
        address_failed(c, c->winner, "TLS handshake timed out");
        connector_report(c, ERR_CONNECT_TIMEOUT);
        return;
    }
    if (c->phase == RESOLVING && !dns_withdraw(&c->lookup)) {
        c->answer_due = true;
        return;
    }
    enum err e = c->phase == RESOLVING ? ERR_DNS : ERR_CONNECT_TIMEOUT;
    for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
        if (c->attempts[i].stream) address_failed(c, c->attempts[i].address, "connect timed out");
    connector_report(c, e);
}

/* ---- names */

static void addresses_known(struct connector *c)
{
    c->phase = CONNECTING;
    c->result = ERR_UNREACHABLE;
    address_try(c);
}

static void lookup_done(struct dns_wait *w)
{
    struct connector *c = container_of(w, struct connector, lookup);
    CHECK_OBJ(c, CONNECTOR_MAGIC);
    if (c->phase == ZOMBIE) {
        struct connect_env *env = c->env;
        connector_free(c);
        CHECK(env->zombies > 0);
        env->zombies--;
        env->zombie_gone(env->arg);
    } else if (w->result == ERR_OK && !c->answer_due) {
        addresses_known(c);
    } else {
        connector_report(c, ERR_DNS);
    }
}

/* ---- interface */

enum err connector_start(struct connect_env *env, connect_fn *fn, void *arg, struct connector **out)
{
    struct connector *c = calloc(1, sizeof *c);
    if (!c) return ERR_NOMEM;
    c->magic = CONNECTOR_MAGIC;
    c->phase = RESOLVING;
    c->env = env;
    c->fn = fn;
    c->arg = arg;
    timer_init(&c->deadline, env->loop, deadline_due);
    timer_init(&c->stagger, env->loop, stagger_due);
    task_init(&c->report, env->loop, connector_report_now);
    timer_set(&c->deadline, env->connect_ms);
    c->lookup.mailbox = env->mailbox;
    c->lookup.done = lookup_done;
    *out = c;
    enum err e = dns_lookup(env->dns, &c->lookup);
    if (e == ERR_OK)
        addresses_known(c);
    else if (e != ERR_AGAIN)
        connector_report(c, ERR_DNS);
    return ERR_OK;
}

void connector_cancel(struct connector *c)
{
    CHECK_OBJ(c, CONNECTOR_MAGIC);
    bool waits = c->phase == RESOLVING && !dns_withdraw(&c->lookup);
    connector_stop(c);
    if (waits) {
        c->phase = ZOMBIE;
        c->env->zombies++;
        return;
    }
    connector_free(c);
}
