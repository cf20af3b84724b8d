/* sniff.c - see sniff.h. */
#include "http/sniff.h"

#include <stdlib.h>

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum { PREFACE_BYTES = sizeof(preface) - 1 };

struct sniffer {
    struct loop *loop;
    sniffed_fn *fn;
    void *arg;
    struct list waiting;
    unsigned count;
};
struct sniff {
    struct sniffer *sniffer;
    struct stream *stream;
    const struct sniff_conf *conf;
    void *tag;
    struct list link;
    struct task task;
    struct timer timer;
    struct address peer;
    size_t n;
    char bytes[SNIFF_BYTES];
};

/* A first line without a slash has no HTTP version in it: neither protocol, but an HTTP/2 preface gone wrong. Then
 * there is nobody to send an HTTP/1.1 error to (RFC 9113 section 3.4). */
static bool is_no_http(const char *p, size_t n)
{
    const char *end = memmem(p, n, "\r\n", 2);
    return end && end > p && !memchr(p, '/', (size_t)(end - p));
}

/* The stream is left to the caller. */
static void sniff_free(struct sniff *w)
{
    const struct sniff_conf *conf = w->conf;
    void (*unhold)(void *owner) = conf->unhold;
    void *owner = conf->owner;
    timer_stop(&w->timer);
    task_cancel(&w->task);
    list_remove(&w->link);
    w->sniffer->count--;
    free(w);
    if (unhold) unhold(owner);
}

static void sniff_drop(struct sniff *w)
{
    stream_destroy(w->stream);
    sniff_free(w);
}

/* The new owner takes its hold before ours is given up. */
static void sniff_decided(struct sniff *w, enum proto proto)
{
    struct sniffer *s = w->sniffer;
    timer_stop(&w->timer);
    task_cancel(&w->task);
    s->fn(s->arg, w->tag, w->stream, &w->peer, proto, w->bytes, w->n);
    sniff_free(w);
}

static void sniff_read(struct sniff *w)
{
    for (;;) {
        size_t got = 0;
        enum err e = stream_read(w->stream, w->bytes + w->n, sizeof(w->bytes) - w->n, &got);
        if (e == ERR_AGAIN) return;
        if (e != ERR_OK && w->n == 0) {
            sniff_drop(w);
            return;
        }
        if (w->n == 0) timer_stop(&w->timer);
        w->n += got;
        size_t look = w->n < PREFACE_BYTES ? w->n : PREFACE_BYTES;
        if (is_no_http(w->bytes, w->n)) {
            sniff_drop(w);
            return;
        }
        /* A preface that ends too early is an HTTP/1.x request that does: that side knows what to say. */
        if (e != ERR_OK || memcmp(w->bytes, preface, look) != 0) {
            sniff_decided(w, PROTO_H1);
            return;
        }
        if (look == PREFACE_BYTES) {
            sniff_decided(w, PROTO_H2);
            return;
        }
        if (!w->timer.due_ms) timer_set(&w->timer, w->conf->head_timeout_ms);
    }
}

static void sniff_on_ready(struct stream *st, unsigned ready, void *arg)
{
    (void)st;
    if (ready & (READY_READ | READY_CLOSED)) sniff_read(arg);
}

static void sniff_on_task(struct task *t)
{
    sniff_read(container_of(t, struct sniff, task));
}

static void sniff_on_timer(struct timer *t)
{
    sniff_drop(container_of(t, struct sniff, timer));
}

enum err sniffer_create(struct loop *l, sniffed_fn *fn, void *arg, struct sniffer **out)
{
    struct sniffer *s = calloc(1, sizeof(*s));
    if (!s) return ERR_NOMEM;
    s->loop = l;
    s->fn = fn;
    s->arg = arg;
    list_init(&s->waiting);
    *out = s;
    return ERR_OK;
}

enum err sniffer_add(struct sniffer *s, struct stream *st, const struct address *peer, const struct sniff_conf *conf,
                     void *tag)
{
    struct sniff *w = malloc(sizeof(*w));
    if (!w) return ERR_NOMEM;
    w->sniffer = s;
    w->stream = st;
    w->conf = conf;
    w->tag = tag;
    w->peer = *peer;
    w->n = 0;
    task_init(&w->task, s->loop, sniff_on_task);
    timer_init(&w->timer, s->loop, sniff_on_timer);
    list_push_back(&s->waiting, &w->link);
    s->count++;
    if (conf->hold) conf->hold(conf->owner);
    timer_set(&w->timer, conf->idle_timeout_ms);
    stream_set_callback(st, sniff_on_ready, w);
    task_schedule(&w->task);
    return ERR_OK;
}

unsigned sniffer_waiting(const struct sniffer *s)
{
    return s->count;
}

void sniffer_close_all(struct sniffer *s)
{
    LIST_EACH_SAFE(n, tmp, &s->waiting) sniff_drop(container_of(n, struct sniff, link));
}

void sniffer_destroy(struct sniffer *s)
{
    if (!s) return;
    sniffer_close_all(s);
    free(s);
}
