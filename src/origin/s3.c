/* s3.c - the origin type s3: everything of http.c, with requests addressed and signed for S3.
 *
 * Clock: S3 refuses signatures more than 15 minutes off. A 403 that carries a Date more than 5 minutes from ours teaches
 * the difference, for all workers; the caller's retry (RequestTimeTooSkewed) is then signed with the origin's time. */
#include <stdio.h>

#include "base/log.h"
#include "http/date.h"
#include "origin/http.h"
#include "s3/address.h"

#define SKEW_MIN_S 300
#define SIGNED_HDRS 4

static void skew_learn(struct http_origin *ho, const struct head *resp)
{
    if (resp->status != 403) return;
    int64_t date = date_parse(head_value(resp, HDR_DATE));
    if (date < 0) return;
    int64_t skew = date - (int64_t)(wallclock_ms() / 1000);
    if (skew > -SKEW_MIN_S && skew < SKEW_MIN_S) skew = 0;
    int64_t old = atomic_exchange_explicit(&ho->skew_s, skew, memory_order_relaxed);
    if (skew - old > SKEW_MIN_S || old - skew > SKEW_MIN_S)
        log_warn("the origin's clock is %lld s ahead of ours: signing with its time", (long long)skew);
}

static struct str payload_hash(const struct origin_request *r)
{
    if (r->payload_hash.n) return r->payload_hash;
    return r->body ? STR_LIT(SIGV4_UNSIGNED) : STR_LIT(SIGV4_EMPTY_SHA256);
}

static enum err sign(struct http_call *call, struct str path, struct hdr *end)
{
    struct http_origin *ho = call->hw->shared;
    struct client_request *q = &call->creq;
    if (ho->creds.anonymous) return ERR_OK;
    int64_t skew = atomic_load_explicit(&ho->skew_s, memory_order_relaxed);
    struct sigv4_request sr = {.method = q->method,
                               .path = path,
                               .query = call->r.query,
                               .host = q->authority,
                               .hdrs = q->hdrs,
                               .nhdrs = q->nhdrs,
                               .payload_hash = payload_hash(&call->r),
                               .region = str_c(ho->region),
                               .now_s = (int64_t)(wallclock_ms() / 1000) + skew};
    unsigned added = 0;
    enum err e = sigv4_sign(&call->hw->key, &ho->creds, &sr, call->mem, end, &added);
    if (e != ERR_OK) return e;
    CHECK(added <= SIGNED_HDRS);
    q->nhdrs += added;
    return ERR_OK;
}

static enum err s3_build(struct http_call *call)
{
    const struct origin_request *r = &call->r;
    const struct origin_conf *conf = call->base.worker->origin->conf;
    const struct endpoint *ep = &conf->endpoint;
    struct client_request *q = &call->creq;
    struct str path;
    struct hdr *end;
    if (r->body && r->body_length < 0) return ERR_LENGTH_REQUIRED;
    enum err e = address_to_origin(&r->address, conf->virtual_hosted, str_c(call->hw->shared->host), ep->port,
                                   ep->https, str_c(ep->prefix), call->mem, &q->authority, &path);
    if (e != ERR_OK) return e;
    q->target = path;
    if (r->query.p) q->target = pool_f(call->mem, STR_FMT "?" STR_FMT, STR_ARG(path), STR_ARG(r->query));
    if (!q->target.p) return ERR_NOMEM;
    e = http_build_hdrs(call, SIGNED_HDRS, &end);
    return e == ERR_OK ? sign(call, path, end) : e;
}

static enum err s3_open(struct origin *o, struct disk *disk, unsigned nworkers, char *msg, size_t n)
{
    enum err e = http_open(o, disk, nworkers, msg, n);
    if (e != ERR_OK) return e;
    struct http_origin *ho = o->priv;
    e = creds_load(&o->conf->creds, &ho->creds, msg, n);
    if (e != ERR_OK) {
        http_close(o);
        return e;
    }
    const char *region = o->conf->region ? o->conf->region : ho->creds.region;
    snprintf(ho->region, sizeof ho->region, "%s", *region ? region : "us-east-1");
    ho->build = s3_build;
    ho->learn = skew_learn;
    return ERR_OK;
}

const struct origin_type_ops origin_s3_ops = {
    .name = "s3",
    .open = s3_open,
    .close = http_close,
    .worker_open = http_worker_open,
    .worker_close = http_worker_close,
    .submit = http_submit,
    .resume = http_resume,
    .cancel = http_cancel,
    .choice = http_choice,
};
