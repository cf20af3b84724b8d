/* ask.c - see the header. */
#include "cli/ask.h"

#include <stdlib.h>

#include "s3/error_xml.h"
#include "s3/listing.h"

#define ANSWER_BYTES ((size_t)64 << 10) /* kept of an answer */

static bool ask_head(void *arg, const struct head *h, int64_t length)
{
    struct ask *a = arg;
    struct str tag = head_value(h, HDR_ETAG);

    (void)length;
    if (tag.n < sizeof a->etag) snprintf(a->etag, sizeof a->etag, STR_FMT, STR_ARG(tag));
    sum_expected(h, &a->sum);
    if (a->head) a->head(a, h);
    return true;
}

static unsigned ask_space(void *arg, struct iovec *iov, unsigned max)
{
    struct ask *a = arg;
    (void)max;
    iov[0] = (struct iovec){a->space, sizeof a->space};
    return 1;
}

static void ask_filled(void *arg, size_t n)
{
    struct ask *a = arg;
    if (a->text.n + n <= ANSWER_BYTES) strbuf_add(&a->text, a->space, n);
}

static void look_for_error(struct ask *a, struct call_result *r)
{
    struct str doc = strbuf_get(&a->text);

    if (r->err != ERR_OK || doc.n == 0 || !memmem(doc.p, doc.n, "<Error>", 7)) return;
    char *message = listing_text(doc, "Message");
    r->err = ERR_INTERNAL;
    r->status = 500;
    snprintf(r->code, sizeof r->code, STR_FMT, STR_ARG(error_xml_code(doc)));
    snprintf(r->message, sizeof r->message, "%s", message ? message : "");
    free(message);
}

static void ask_end(void *arg, const struct call_result *result)
{
    struct ask *a = arg;
    struct call_result r = *result;

    look_for_error(a, &r);
    request_ended(a->t, &a->request, a->op, a->bucket, a->key, a->bytes, &r);
    a->done(a, &r);
}

enum err ask_start(struct transfer *t, struct ask *a, const char *op, const struct call_request *q,
                   void (*done)(struct ask *a, const struct call_result *r))
{
    static const struct call_events events = {ask_head, ask_space, ask_filled, ask_end};

    if (!a->t) strbuf_init(&a->text, 2 * ANSWER_BYTES);
    a->t = t;
    a->op = op;
    a->bucket = q->bucket;
    a->key = q->key;
    a->bytes = q->body ? (uint64_t)q->body_length : 0;
    a->text.n = 0;
    a->etag[0] = '\0';
    a->sum.kind = SUM_NONE;
    a->done = done;
    return request_start(t, &a->request, q, &events, a);
}

void ask_cancel(struct ask *a)
{
    if (a->t) request_cancel(a->t, &a->request);
}

void ask_free(struct ask *a)
{
    if (a->t) strbuf_free(&a->text);
}
