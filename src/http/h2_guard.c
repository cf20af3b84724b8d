/* h2_guard.c - see h2_guard.h. */
#include "http/h2_guard.h"

#include <string.h>

#include "base/check.h"

enum { PREFACE_BYTES = 24, HEADER_BYTES = 9, SETTING_BYTES = 6 };
enum { FRAME_DATA, FRAME_HEADERS, FRAME_PRIORITY, FRAME_RST_STREAM, FRAME_SETTINGS, FRAME_PUSH_PROMISE, FRAME_PING,
       FRAME_GOAWAY, FRAME_WINDOW_UPDATE, FRAME_CONTINUATION };
enum { FLAG_END_STREAM = 0x1, FLAG_ACK = 0x1, FLAG_END_HEADERS = 0x4, FLAG_PADDED = 0x8, FLAG_PRIORITY = 0x20 };
enum { ERROR_PROTOCOL = 0x1, ERROR_STREAM_CLOSED = 0x5, ERROR_CALM = 0xb };
enum { PING_EARNED_BY = 16384, WINDOW_EARNED_BY = 512, REQUEST_WINDOWS = 4, REQUEST_PRIORITIES = 4 };

void h2_guard_conf_defaults(struct h2_guard_conf *c)
{
    static const struct h2_rate rates[H2_FLOODS] = {
#define X(name, what, burst, rate) {burst, rate},
        H2_FLOOD_TABLE(X)
#undef X
    };
    memcpy(c->rates, rates, sizeof(rates));
    c->continuations = 8;
    c->settings_entries = 32;
    c->header_block_bytes = 64 * 1024;
}

void h2_guard_init(struct h2_guard *g, const struct h2_guard_conf *conf, uint64_t now_ms)
{
    memset(g, 0, sizeof(*g));
    g->conf = conf;
    g->preface_left = PREFACE_BYTES;
    for (unsigned i = 0; i < H2_FLOODS; i++) g->buckets[i] = (struct h2_bucket){now_ms, conf->rates[i].burst};
}

/* ---- counting */

static void bucket_refill(struct h2_bucket *b, const struct h2_rate *rate, uint64_t now_ms)
{
    uint64_t passed_ms = now_ms > b->refilled_ms ? now_ms - b->refilled_ms : 0;
    if (passed_ms > 3600000) passed_ms = 3600000;
    uint64_t more = passed_ms * rate->per_second / 1000;
    if (!more) return; /* the time goes on counting */
    b->refilled_ms = now_ms;
    more += b->tokens;
    b->tokens = more < rate->burst ? (uint32_t)more : rate->burst;
}

static void bucket_earn(struct h2_guard *g, enum h2_flood kind, uint32_t n)
{
    struct h2_bucket *b = &g->buckets[kind];
    uint32_t burst = g->conf->rates[kind].burst;
    b->tokens = burst - b->tokens > n ? b->tokens + n : burst;
}

bool h2_guard_take(struct h2_guard *g, enum h2_flood kind, uint64_t now_ms, struct h2_fault *fault)
{
    static const char *const texts[H2_FLOODS] = {
#define X(name, what, burst, rate) "too many: " what,
        H2_FLOOD_TABLE(X)
#undef X
    };
    struct h2_bucket *b = &g->buckets[kind];
    if (b->tokens == 0) bucket_refill(b, &g->conf->rates[kind], now_ms);
    if (b->tokens == 0) {
        *fault = (struct h2_fault){ERROR_CALM, kind, texts[kind]};
        return false;
    }
    b->tokens--;
    return true;
}

static uint32_t turn_into_tokens(uint32_t *bytes, size_t more, uint32_t each)
{
    uint64_t sum = *bytes + (uint64_t)more;
    *bytes = (uint32_t)(sum % each);
    return sum / each < UINT32_MAX / 2 ? (uint32_t)(sum / each) : UINT32_MAX / 2;
}

void h2_guard_sent(struct h2_guard *g, size_t data_bytes)
{
    bucket_earn(g, H2_FLOOD_PING, turn_into_tokens(&g->ping_bytes, data_bytes, PING_EARNED_BY));
    bucket_earn(g, H2_FLOOD_WINDOW, turn_into_tokens(&g->window_bytes, data_bytes, WINDOW_EARNED_BY));
}

void h2_guard_request(struct h2_guard *g)
{
    bucket_earn(g, H2_FLOOD_WINDOW, REQUEST_WINDOWS);
    bucket_earn(g, H2_FLOOD_PRIORITY, REQUEST_PRIORITIES);
}

void h2_guard_answered(struct h2_guard *g)
{
    bucket_earn(g, H2_FLOOD_RESET, 1);
}

/* ---- the client's halves of its streams */

static unsigned slot_of(uint32_t id)
{
    return (id / 2) % H2_GUARD_STREAMS;
}
static bool bit_get(const uint64_t *bits, unsigned slot)
{
    return bits[slot / 64] >> (slot % 64) & 1;
}
static void bit_set(uint64_t *bits, unsigned slot)
{
    bits[slot / 64] |= UINT64_C(1) << (slot % 64);
}
static void bit_clear(uint64_t *bits, unsigned slot)
{
    bits[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
}

/* Streams that are too old, not yet there, or not the client's to open are left to the session. */
static bool is_remembered(const struct h2_guard *g, uint32_t id)
{
    return (id & 1) && id <= g->last_id && (g->last_id - id) / 2 < H2_GUARD_STREAMS;
}

static void stream_open(struct h2_guard *g, uint32_t id)
{
    uint32_t skipped = g->last_id ? (id - g->last_id) / 2 : id / 2 + 1;
    if (skipped >= H2_GUARD_STREAMS) {
        memset(g->opened, 0, sizeof(g->opened));
        memset(g->ended, 0, sizeof(g->ended));
    } else {
        for (uint32_t i = 0; i < skipped; i++) {
            bit_clear(g->opened, slot_of(id - 2 * i));
            bit_clear(g->ended, slot_of(id - 2 * i));
        }
    }
    g->last_id = id;
    bit_set(g->opened, slot_of(id));
}

static void stream_ended(struct h2_guard *g, uint32_t id)
{
    if (is_remembered(g, id)) bit_set(g->ended, slot_of(id));
}

/* ---- frames */

static bool wrong(struct h2_fault *fault, uint32_t error, const char *text)
{
    *fault = (struct h2_fault){error, H2_FLOODS, text};
    return false;
}

static bool stream_usable(struct h2_guard *g, uint32_t id, struct h2_fault *fault)
{
    if (!is_remembered(g, id)) return true;
    if (!bit_get(g->opened, slot_of(id))) return wrong(fault, ERROR_PROTOCOL, "frame on a stream that was skipped");
    if (bit_get(g->ended, slot_of(id))) return wrong(fault, ERROR_STREAM_CLOSED, "frame on a closed stream");
    return true;
}

static bool block_bytes_ok(struct h2_guard *g, uint32_t length, uint64_t now_ms, struct h2_fault *fault)
{
    (void)now_ms;
    g->block_bytes += length;
    if (g->block_bytes <= g->conf->header_block_bytes) return true;
    *fault = (struct h2_fault){ERROR_CALM, H2_FLOOD_CONTINUATION, "header block too large"};
    return false;
}

static bool headers_begin(struct h2_guard *g, uint32_t length, uint64_t now_ms, struct h2_fault *fault)
{
    uint32_t id = g->stream;
    if (!stream_usable(g, id, fault)) return false;
    if ((id & 1) && id > g->last_id) stream_open(g, id);
    if (g->flags & FLAG_END_STREAM) stream_ended(g, id);
    g->in_block = !(g->flags & FLAG_END_HEADERS);
    g->continuations = 0;
    g->block_bytes = 0;
    g->blocks++;
    if (g->flags & FLAG_PRIORITY) g->peek_want = g->flags & FLAG_PADDED ? 5 : 4;
    return block_bytes_ok(g, length, now_ms, fault);
}

static bool continuation_begin(struct h2_guard *g, uint32_t length, uint64_t now_ms, struct h2_fault *fault)
{
    if (!h2_guard_take(g, H2_FLOOD_CONTINUATION, now_ms, fault)) return false;
    if (!g->in_block) return stream_usable(g, g->stream, fault); /* an error in any case; the session says which */
    if (++g->continuations > g->conf->continuations) {
        *fault = (struct h2_fault){ERROR_CALM, H2_FLOOD_CONTINUATION, "too many CONTINUATION frames in a header block"};
        return false;
    }
    if (g->flags & FLAG_END_HEADERS) g->in_block = false;
    return block_bytes_ok(g, length, now_ms, fault);
}

/* Every entry that changes the initial window is work for every stream. */
static bool settings_begin(struct h2_guard *g, uint32_t length, uint64_t now_ms, struct h2_fault *fault)
{
    if (g->flags & FLAG_ACK) return true; /* more of them than SETTINGS of ours are an error to the session */
    if (length > (uint64_t)g->conf->settings_entries * SETTING_BYTES) {
        *fault = (struct h2_fault){ERROR_CALM, H2_FLOOD_SETTINGS, "too many entries in a SETTINGS frame"};
        return false;
    }
    return h2_guard_take(g, H2_FLOOD_SETTINGS, now_ms, fault);
}

static bool data_begin(struct h2_guard *g, uint32_t length, uint64_t now_ms, struct h2_fault *fault)
{
    if (!stream_usable(g, g->stream, fault)) return false;
    if (g->flags & FLAG_END_STREAM) {
        stream_ended(g, g->stream);
        return true;
    }
    /* Padded ones look longer but may carry nothing just as well: the pad length is the first byte. */
    if (length == 0) return h2_guard_take(g, H2_FLOOD_EMPTY, now_ms, fault);
    if (g->flags & FLAG_PADDED) g->peek_want = 1;
    return true;
}

/* In the middle of a header block nothing but its CONTINUATION may come; the session ends the connection then. */
static bool frame_begin(struct h2_guard *g, uint64_t now_ms, struct h2_fault *fault)
{
    const uint8_t *h = g->header;
    uint32_t length = (uint32_t)h[0] << 16 | (uint32_t)h[1] << 8 | h[2];
    g->type = h[3];
    g->flags = h[4];
    g->stream = ((uint32_t)h[5] << 24 | (uint32_t)h[6] << 16 | (uint32_t)h[7] << 8 | h[8]) & 0x7fffffff;
    g->payload_left = length;
    g->peek_n = g->peek_want = 0;
    switch (g->type) {
    case FRAME_DATA: return data_begin(g, length, now_ms, fault);
    case FRAME_HEADERS: return headers_begin(g, length, now_ms, fault);
    case FRAME_CONTINUATION: return continuation_begin(g, length, now_ms, fault);
    case FRAME_RST_STREAM:
        stream_ended(g, g->stream);
        return h2_guard_take(g, H2_FLOOD_RESET, now_ms, fault);
    case FRAME_SETTINGS: return settings_begin(g, length, now_ms, fault);
    case FRAME_PING:
        if (!(g->flags & FLAG_ACK) || g->acks_due == 0) return h2_guard_take(g, H2_FLOOD_PING, now_ms, fault);
        g->acks_due--;
        return true;
    case FRAME_WINDOW_UPDATE: return h2_guard_take(g, H2_FLOOD_WINDOW, now_ms, fault);
    case FRAME_PRIORITY:
        if (g->stream == 0) return wrong(fault, ERROR_PROTOCOL, "PRIORITY on stream 0");
        g->peek_want = 4;
        return h2_guard_take(g, H2_FLOOD_PRIORITY, now_ms, fault);
    default: return h2_guard_take(g, H2_FLOOD_PRIORITY, now_ms, fault);
    }
}

/* The first bytes of a payload are here. */
static bool peeked(struct h2_guard *g, uint32_t length, uint64_t now_ms, struct h2_fault *fault)
{
    const uint8_t *p = g->peek;
    if (g->type == FRAME_DATA) return p[0] + 1u < length || h2_guard_take(g, H2_FLOOD_EMPTY, now_ms, fault);
    if (g->type == FRAME_HEADERS && g->flags & FLAG_PADDED) p++;
    uint32_t depends_on = ((uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]) & 0x7fffffff;
    if (depends_on == g->stream && g->stream) return wrong(fault, ERROR_PROTOCOL, "stream depends on itself");
    return true;
}

size_t h2_guard_scan(struct h2_guard *g, const uint8_t *p, size_t n, uint64_t now_ms, struct h2_fault *fault)
{
    size_t at = 0;
    if (g->preface_left) {
        at = n < g->preface_left ? n : g->preface_left;
        g->preface_left -= (uint32_t)at;
    }
    while (at < n) {
        size_t have = n - at;
        if (g->payload_left) {
            while (g->peek_n < g->peek_want && have && g->payload_left) {
                g->peek[g->peek_n++] = p[at++];
                have--;
                g->payload_left--;
                if (g->peek_n == g->peek_want) {
                    const uint8_t *h = g->header;
                    uint32_t length = (uint32_t)h[0] << 16 | (uint32_t)h[1] << 8 | h[2];
                    if (!peeked(g, length, now_ms, fault)) return at - 1;
                }
            }
            size_t skip = have < g->payload_left ? have : g->payload_left;
            at += skip;
            g->payload_left -= (uint32_t)skip;
            continue;
        }
        size_t take = HEADER_BYTES - (size_t)g->head_n;
        if (take > have) take = have;
        memcpy(g->header + g->head_n, p + at, take);
        g->head_n = (uint8_t)(g->head_n + take);
        at += take;
        if (g->head_n < HEADER_BYTES) break;
        g->head_n = 0;
        if (!frame_begin(g, now_ms, fault)) return at - take;
    }
    return at;
}
