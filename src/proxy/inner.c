/* inner.c - see the header. The exchange's other side is here what a server is otherwise (http/exchange.h). */
#include "proxy/inner.h"

#include <stdlib.h>

#define CHUNKS 16u
#define ROUND_BYTES (1u << 20) /* then others have their turn */
#define PULL_BYTES (64u << 10) /* at a time by those who may not be ready for more */

struct inner {
    struct exchange x;
    struct address local;
    struct hdr host;
    struct task task;
    const struct inner_events *ev;
    void *arg;
    struct body *body;
    enum err fail;
    bool started, responded, over;
};

static struct inner *inner_of(struct exchange *x) { return container_of(x, struct inner, x); }

static void inner_finish(struct inner *i, enum err why)
{
    CHECK(!i->over);
    i->over = true;
    task_cancel(&i->task);
    if (i->body && i->body->ops) body_close(i->body);
    i->x.handler->end(&i->x, why);
    pool_destroy(i->x.pool);
}

static void inner_end(struct inner *i, enum err why)
{
    inner_finish(i, why);
    i->ev->end(i->arg, why);
    free(i);
}

/* ERR_AGAIN: there is nothing now; ERR_OK: enough for this round. */
static enum err inner_pull(struct inner *i)
{
    size_t most = i->ev->ready ? PULL_BYTES : ROUND_BYTES;
    for (size_t taken = 0; taken < ROUND_BYTES;) {
        struct chunk c[CHUNKS];
        unsigned n;
        if (i->ev->ready && !i->ev->ready(i->arg)) return ERR_AGAIN;
        enum err e = body_pull(i->body, c, CHUNKS, ROUND_BYTES - taken < most ? ROUND_BYTES - taken : most, &n);
        for (unsigned k = 0; k < n; k++) {
            if (!i->x.first_byte_ns) i->x.first_byte_ns = clock_ns();
            if (i->ev->data) i->ev->data(i->arg, c[k].data, c[k].len);
            taken += c[k].len;
            i->x.sent_bytes += c[k].len;
            chunk_release(&c[k], CHUNK_COPIED);
        }
        if (e != ERR_OK) return e;
    }
    return ERR_OK;
}

static void inner_step(struct task *t)
{
    struct inner *i = container_of(t, struct inner, task);

    if (!i->started) {
        i->started = true;
        i->x.handler->begin(&i->x);
        if (!i->x.handler_data && i->fail == ERR_OK) i->fail = ERR_NOMEM;
    }
    enum err e = i->fail != ERR_OK ? i->fail : !i->responded ? ERR_AGAIN : i->body ? inner_pull(i) : ERR_END;
    if (e == ERR_OK) task_schedule(&i->task);
    else if (e != ERR_AGAIN) inner_end(i, e == ERR_END ? ERR_OK : e);
}

static void inner_more(void *arg)
{
    struct inner *i = arg;
    if (!i->over) task_schedule(&i->task);
}

static void inner_respond(struct exchange *x, const struct head *resp, struct body *body)
{
    struct inner *i = inner_of(x);
    (void)resp;
    i->responded = true;
    i->body = body;
    if (body) {
        body->notify = inner_more;
        body->notify_arg = i;
    }
    if (i->ev->head && !i->ev->head(i->arg, x->handler_data)) i->fail = ERR_CANCELLED;
    task_schedule(&i->task);
}

static void inner_inform(struct exchange *x) { (void)x; }

static void inner_reset(struct exchange *x)
{
    struct inner *i = inner_of(x);
    struct request *r = x->handler_data;
    if (i->fail == ERR_OK) i->fail = r && r->error != ERR_OK ? r->error : ERR_RESET;
    task_schedule(&i->task);
}

static const struct exchange_ops inner_ops = {inner_respond, inner_inform, inner_reset};

enum err inner_get(const struct inner_asker *who, struct str target, const struct inner_events *ev, void *arg,
                   struct inner **out)
{
    const struct listener_ref *via = who->via;
    struct str host = who->host;
    struct inner *i = calloc(1, sizeof *i);
    struct pool *pool = i ? pool_create(via->worker->proxy->conf->request_memory_bytes + target.n + host.n) : NULL;
    struct exchange *x = &i->x;

    if (!pool) {
        free(i);
        return ERR_NOMEM;
    }
    i->local = who->peer;
    i->ev = ev;
    i->arg = arg;
    i->host = (struct hdr){STR_LIT("Host"), pool_str(pool, host), HDR_HOST};
    *x = (struct exchange){.ops = &inner_ops, .loop = via->worker->loop, .pool = pool, .peer = &who->peer, .local = &i->local,
                           .listener_data = (void *)(uintptr_t)via, .proto = PROTO_H1, .inner = true, .tls = who->tls,
                           .tls_version = who->tls_version, .tls_client = who->tls_client, .begin_ns = clock_ns(),
                           .handler = &request_handler};
    x->req = (struct head){.method = METHOD_GET, .method_text = STR_LIT("GET"), .target = pool_str(pool, target), .minor = 1,
                           .hdrs = &i->host, .nhdrs = host.n > 0, .content_length = -1};
    x->req_body.length = -1;
    if (!x->req.target.p || (host.n && !i->host.value.p)) {
        pool_destroy(pool);
        free(i);
        return ERR_NOMEM;
    }
    task_init(&i->task, x->loop, inner_step);
    task_schedule(&i->task);
    *out = i;
    return ERR_OK;
}

void inner_resume(struct inner *i) { task_schedule(&i->task); }

void inner_cancel(struct inner *i)
{
    if (i->started) {
        inner_finish(i, ERR_CANCELLED);
    } else {
        task_cancel(&i->task);
        pool_destroy(i->x.pool);
    }
    free(i);
}

struct request *inner_request(struct inner *i) { return i->started ? i->x.handler_data : NULL; }
