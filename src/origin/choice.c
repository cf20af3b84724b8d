/* choice.c - see the header. */
#include "origin/choice.h"

#define RELAXED memory_order_relaxed
#define ASK_AGAIN_MS 600000 /* an origin without h2 may have learned it */

static bool is_open(const struct choice *c) { return c->mode == HTTP2_AUTO && c->tls; }

void choice_init(struct choice *c, enum origin_http2 mode, bool tls)
{
    *c = (struct choice){.mode = mode, .tls = tls};
    atomic_init(&c->offered, mode == HTTP2_PRIOR_KNOWLEDGE ? 1 : -1);
    atomic_init(&c->now[LOAD_SMALL], PROTO_H2);
    atomic_init(&c->now[LOAD_BULK], PROTO_H1);
}

enum proto choice_pick(struct choice *c, uint64_t bytes, uint64_t now_ms)
{
    if (c->mode == HTTP2_PRIOR_KNOWLEDGE) return PROTO_H2;
    if (c->mode == HTTP2_OFF || !c->tls) return PROTO_H1;
    int offered = atomic_load_explicit(&c->offered, RELAXED);
    if (offered == 0 && now_ms < atomic_load_explicit(&c->until_ms, RELAXED)) return PROTO_H1;
    if (now_ms < atomic_load_explicit(&c->h2_only_until_ms, RELAXED)) return PROTO_H2;
    enum load l = load_of(bytes);
    enum proto p = (enum proto)atomic_load_explicit(&c->now[l], RELAXED);
    if (offered != 1) return p;
    uint32_t turn = atomic_fetch_add_explicit(&c->turn[l], 1, RELAXED) + 1;
    bool known = atomic_load_explicit(&c->seen[l][!p].samples, RELAXED) >= CHOICE_SAMPLES;
    return turn % (known ? CHOICE_EXPLORE : CHOICE_EXPLORE_FIRST) == 0 ? (enum proto) !p : p;
}

void choice_offered(struct choice *c, bool h2, uint64_t now_ms)
{
    if (c->mode != HTTP2_AUTO) return;
    if (!h2) atomic_store_explicit(&c->until_ms, now_ms + ASK_AGAIN_MS, RELAXED);
    atomic_store_explicit(&c->offered, h2, RELAXED);
}

void choice_h1_answered(struct choice *c)
{
    if (atomic_load_explicit(&c->h1_works, RELAXED)) return;
    atomic_store_explicit(&c->h1_works, true, RELAXED);
    atomic_store_explicit(&c->h2_only_until_ms, 0, RELAXED);
}

/* Only an origin that is known to speak h2 is taken for one that speaks nothing else: it may as well be down. */
bool choice_h1_failed(struct choice *c, uint64_t now_ms)
{
    int offered = atomic_load_explicit(&c->offered, RELAXED);
    if (!is_open(c) || offered == 0 || atomic_load_explicit(&c->h1_works, RELAXED)) return false;
    if (offered == 1) atomic_store_explicit(&c->h2_only_until_ms, now_ms + ASK_AGAIN_MS, RELAXED);
    return true;
}

uint64_t choice_seen(const struct choice *c, enum load l, enum proto p)
{
    return atomic_load_explicit(&c->seen[l][p].value, RELAXED);
}

/* The first samples count as much as all others of the start, later ones an eighth each. */
static void average(struct choice *c, enum load l, enum proto p, uint64_t value)
{
    uint64_t n = atomic_load_explicit(&c->seen[l][p].samples, RELAXED) + 1, weight = n < 8 ? n : 8;
    uint64_t old = choice_seen(c, l, p);
    atomic_store_explicit(&c->seen[l][p].samples, n, RELAXED);
    uint64_t mean = value > old ? old + (value - old) / weight : old - (old - value) / weight;
    atomic_store_explicit(&c->seen[l][p].value, mean, RELAXED);
}

/* Better by a third, or the choice stays. */
static void reconsider(struct choice *c, enum load l)
{
    int now = atomic_load_explicit(&c->now[l], RELAXED);
    for (int p = 0; p < 2; p++)
        if (atomic_load_explicit(&c->seen[l][p].samples, RELAXED) < CHOICE_SAMPLES) return;
    uint64_t ours = choice_seen(c, l, (enum proto)now), other = choice_seen(c, l, (enum proto) !now);
    bool better = l == LOAD_BULK ? other / 4 > ours / 3 : other < ours - ours / 4;
    if (better) atomic_store_explicit(&c->now[l], !now, RELAXED);
}

void choice_learn_small(struct choice *c, enum proto p, uint64_t first_byte_us)
{
    average(c, LOAD_SMALL, p, first_byte_us);
    if (is_open(c)) reconsider(c, LOAD_SMALL);
}

void choice_learn_bulk(struct choice *c, enum proto p, uint64_t bytes, uint64_t us, uint64_t in_flight)
{
    if (us == 0 || bytes > UINT64_MAX / 1000000) return;
    average(c, LOAD_BULK, p, bytes * 1000000 / us * (in_flight ? in_flight : 1));
    if (is_open(c)) reconsider(c, LOAD_BULK);
}

void choice_learn_usual(struct choice *c, uint64_t bytes)
{
    uint64_t old = choice_usual(c);
    uint64_t mean = bytes > old ? old + (bytes - old) / 8 : old - (old - bytes) / 8;
    atomic_store_explicit(&c->usual_bytes, mean, RELAXED);
}

uint64_t choice_usual(const struct choice *c) { return atomic_load_explicit(&c->usual_bytes, RELAXED); }

void choice_text(const struct choice *c, uint64_t now_ms, const char **choice, const char **why)
{
    static const char *const choices[2][2] = {/* [small][bulk] */
                                              {"http/1.1", "http/1.1 for small, h2 for bulk"},
                                              {"h2 for small, http/1.1 for bulk", "h2"}};
    static const char *const reasons[2][2] = {
        {"measured: HTTP/1.1 answers small requests clearly sooner", "measured: each is clearly better at it"},
        {"the rule: bulk has connections of its own, small requests share one",
         "measured: h2 moves bulk clearly faster"}};
    int offered = atomic_load_explicit(&c->offered, RELAXED);
    int small = atomic_load_explicit(&c->now[LOAD_SMALL], RELAXED), bulk = atomic_load_explicit(&c->now[LOAD_BULK], RELAXED);
    *choice = "http/1.1";
    if (c->mode == HTTP2_OFF) {
        *why = "configured: http2 off";
    } else if (c->mode == HTTP2_PRIOR_KNOWLEDGE) {
        *choice = "h2";
        *why = "configured: http2 prior-knowledge";
    } else if (!c->tls) {
        *why = "no TLS, so the origin cannot offer h2";
    } else if (offered <= 0) {
        *why = offered < 0 ? "the origin has not been asked for h2 yet" : "the origin does not offer h2";
    } else if (now_ms < atomic_load_explicit(&c->h2_only_until_ms, RELAXED)) {
        *choice = "h2";
        *why = "the origin ends HTTP/1.1 connections without an answer";
    } else {
        *choice = choices[small][bulk];
        *why = reasons[small][bulk];
    }
}
