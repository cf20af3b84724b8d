/* origin.c - picks the type's methods by the configuration and passes every call to them. */
#include "origin/origin.h"

#include <stdio.h>
#include <stdlib.h>

#include "origin/choice.h"
#include "origin/impl.h"

#define ORIGIN_MAGIC 0x6f726967u
#define WORKER_MAGIC 0x6f77726bu

static const struct origin_type_ops *ops_of(enum origin_type t)
{
    switch (t) {
    case ORIGIN_S3: return &origin_s3_ops;
    case ORIGIN_HTTP: return &origin_http_ops;
    case ORIGIN_FILE: return &origin_file_ops;
    }
    return NULL;
}

enum err origin_create(const struct origin_conf *c, unsigned nworkers, struct disk *disk, struct origin **out,
                       char *msg, size_t n)
{
    struct origin *o = calloc(1, sizeof *o);
    *out = NULL;
    if (!o) {
        snprintf(msg, n, "out of memory");
        return ERR_NOMEM;
    }
    o->magic = ORIGIN_MAGIC;
    o->conf = c;
    o->ops = ops_of(c->type);
    CHECK(o->ops != NULL);
    enum err e = o->ops->open(o, disk, nworkers, msg, n);
    if (e != ERR_OK) {
        free(o);
        return e;
    }
    *out = o;
    return ERR_OK;
}

void origin_destroy(struct origin *o)
{
    if (!o) return;
    CHECK_OBJ(o, ORIGIN_MAGIC);
    o->ops->close(o);
    o->magic = 0;
    free(o);
}

void origin_set_meter(struct origin *o, struct meter memory)
{
    CHECK_OBJ(o, ORIGIN_MAGIC);
    o->memory = memory;
}

const struct origin_conf *origin_conf(const struct origin *o)
{
    CHECK_OBJ(o, ORIGIN_MAGIC);
    return o->conf;
}

void origin_protocol_choice(const struct origin *o, const char **choice, const char **why)
{
    CHECK_OBJ(o, ORIGIN_MAGIC);
    *choice = *why = "none";
    if (o->ops->choice) choice_text(o->ops->choice(o), clock_ns() / 1000000, choice, why);
}

void origin_protocol_seen(const struct origin *o, struct origin_protocol_seen *out)
{
    CHECK_OBJ(o, ORIGIN_MAGIC);
    *out = (struct origin_protocol_seen){{0, 0}, {0, 0}};
    if (!o->ops->choice) return;
    const struct choice *c = o->ops->choice(o);
    for (int p = PROTO_H1; p <= PROTO_H2; p++) {
        out->first_byte_us[p] = choice_seen(c, LOAD_SMALL, (enum proto)p);
        out->bulk_bytes_per_s[p] = choice_seen(c, LOAD_BULK, (enum proto)p);
    }
}

enum err origin_worker_create(struct origin *o, unsigned index, struct mailbox *mb, struct origin_worker **out)
{
    CHECK_OBJ(o, ORIGIN_MAGIC);
    *out = NULL;
    struct origin_worker *w = calloc(1, sizeof *w);
    if (!w) return ERR_NOMEM;
    w->magic = WORKER_MAGIC;
    w->origin = o;
    w->mailbox = mb;
    w->loop = mailbox_loop(mb);
    enum err e = o->ops->worker_open(w, index);
    if (e != ERR_OK) {
        free(w);
        return e;
    }
    *out = w;
    return ERR_OK;
}

static void worker_closed(void *arg)
{
    struct origin_worker *w = arg;
    void (*done)(void *) = w->closed;
    void *done_arg = w->closed_arg;
    w->magic = 0;
    free(w);
    if (done) done(done_arg);
}

void origin_worker_destroy(struct origin_worker *w, void (*done)(void *arg), void *arg)
{
    CHECK_OBJ(w, WORKER_MAGIC);
    w->closed = done;
    w->closed_arg = arg;
    w->origin->ops->worker_close(w, worker_closed, w);
}

struct origin_stats *origin_worker_stats(struct origin_worker *w) { return &w->stats; }

struct origin *origin_worker_origin(const struct origin_worker *w) { return w->origin; }

enum err origin_submit(struct origin_worker *w, const struct origin_request *r, const struct client_events *ev,
                       void *arg, struct origin_call **out)
{
    CHECK_OBJ(w, WORKER_MAGIC);
    return w->origin->ops->submit(w, r, ev, arg, out);
}

void origin_resume(struct origin_call *c) { c->worker->origin->ops->resume(c); }

void origin_cancel(struct origin_call *c) { c->worker->origin->ops->cancel(c); }
