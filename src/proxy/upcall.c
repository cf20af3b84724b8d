/* upcall.c - an origin call whose receiver can change: a discovery reads the head, then a part or a relay takes the body.
 * The upcall frees itself right before it passes on the end. */
#include <stdlib.h>

#include "proxy/proxy.h"

struct upcall {
    struct origin_call *call;
    const struct origin *origin;
    const struct client_events *ev;
    void *arg;
    bool answered;
};

static void upcall_head(void *arg, const struct head *resp, int64_t length)
{
    struct upcall *u = arg;
    u->answered = true;
    proxy_origin_seen(modapi_proxy(), u->origin, ERR_OK);
    u->ev->head(u->arg, resp, length);
}

static unsigned upcall_space(void *arg, struct iovec *iov, unsigned max)
{
    struct upcall *u = arg;
    return u->ev->space(u->arg, iov, max);
}

static void upcall_filled(void *arg, size_t n)
{
    struct upcall *u = arg;
    u->ev->filled(u->arg, n);
}

static void upcall_end(void *arg, enum err why)
{
    struct upcall *u = arg;
    const struct client_events *ev = u->ev;
    void *receiver = u->arg;
    if (!u->answered) proxy_origin_seen(modapi_proxy(), u->origin, why);
    free(u);
    ev->end(receiver, why);
}

static const struct client_events upcall_events = {upcall_head, upcall_space, upcall_filled, upcall_end};

enum err upcall_start(struct origin_worker *w, const struct origin_request *r, const struct client_events *ev, void *arg,
                      struct upcall **out)
{
    struct upcall *u = malloc(sizeof *u);

    *out = NULL;
    if (!u) return ERR_NOMEM;
    u->origin = origin_worker_origin(w);
    u->answered = false;
    u->ev = ev;
    u->arg = arg;
    enum err e = origin_submit(w, r, &upcall_events, u, &u->call);
    if (e != ERR_OK) {
        free(u);
        return e;
    }
    *out = u;
    return ERR_OK;
}

void upcall_retarget(struct upcall *u, const struct client_events *ev, void *arg)
{
    u->ev = ev;
    u->arg = arg;
}

void upcall_resume(struct upcall *u) { origin_resume(u->call); }

void upcall_cancel(struct upcall *u)
{
    if (!u) return;
    origin_cancel(u->call);
    free(u);
}
