/* test_fetch.c - discovery, parts and delivery of the whole proxy against an origin that misbehaves as a script says: it
 * ignores ranges, changes objects, breaks off, lies about ranges and lengths, has no memory. Real workers and client
 * connections; only the origin is made up, in place of src/origin/origin.c.
 *
 * Every byte is a function of the object's version and its offset, and every answer names its version: two of them can
 * never be mixed unnoticed. A body that ends early must end in a broken connection. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "origin/impl.h"
#include "proxy/proxy.h"

#define SS 65536u
#define PART (8u * SS)
#define MEMORY (16u * SS)
#define TURN_BYTES 200000u

/* ---- the made-up origin ---- */

/* Objects are /SIZE/NAME. Requests are counted from 1; a range of requests is [from, to). */
static struct script {
    const char *etag;          /* with %u for the version; NULL none */
    bool no_ranges;            /* 200 with everything to everyone */
    bool no_store, no_length, head_without_length;
    bool extra;                /* ranges come without a length, and with more bytes than they should */
    bool always_new;           /* every answer is of another version */
    unsigned whole_from;       /* later requests get a 200 */
    unsigned change_at;        /* a new version from this request on */
    unsigned status, from, to; /* answers with an error */
    unsigned wrong_at;         /* a 206 of another range */
    unsigned nomem_at;         /* origin_submit fails */
    uint64_t cut;              /* every answer breaks off after so many bytes */
    unsigned turn_ms;          /* between 200 kB and the next */
} script;
static _Atomic unsigned requests, heads;
static _Atomic uint64_t sent_bytes, versions;

struct call {
    struct origin_call base;
    struct client_events ev;
    void *arg;
    struct timer timer;
    struct task task;
    enum method method;
    bool has_range, running, dead, paused, headed;
    uint64_t first, last, size, pos, end, sent;
    unsigned number, version;
    char name[64], if_match[32];
};

static uint8_t byte_at(unsigned version, uint64_t off)
{
    return (uint8_t)((off ^ off >> 8 ^ off >> 16) * 5 + version * 37);
}

static void call_free(struct call *c)
{
    timer_stop(&c->timer);
    task_cancel(&c->task);
    free(c);
}

static bool call_died(struct call *c)
{
    bool dead = c->dead;
    c->running = false;
    if (dead) call_free(c);
    return dead;
}

static void call_end(struct call *c, enum err why)
{
    struct client_events ev = c->ev;
    void *arg = c->arg;
    call_free(c);
    ev.end(arg, why);
}

static unsigned call_status(struct call *c)
{
    char etag[32] = "";
    bool whole = script.no_ranges || (script.whole_from && c->number >= script.whole_from);

    if (script.status && c->number >= script.from && c->number < script.to) return script.status;
    if (script.change_at && c->number == script.change_at) atomic_fetch_add(&versions, 1);
    c->version = script.always_new ? (unsigned)atomic_fetch_add(&versions, 1) : (unsigned)atomic_load(&versions);
    if (script.etag) snprintf(etag, sizeof etag, script.etag, c->version);
    if (c->if_match[0] && strcmp(etag, c->if_match) != 0) return 412;
    c->pos = 0;
    c->end = c->method == METHOD_HEAD ? 0 : c->size;
    if (c->method == METHOD_HEAD || !c->has_range || whole) return 200;
    if (c->first >= c->size) return 416;
    c->pos = c->first;
    c->end = c->last < c->size ? c->last + 1 : c->size;
    if (script.wrong_at && c->number == script.wrong_at) c->pos -= c->pos ? SS : 0;
    return 206;
}

/* Its caller looks whether the call is still alive. */
static void call_head(struct call *c)
{
    unsigned status = call_status(c), n = 0;
    char range[80], etag[32], version[16];
    struct hdr h[8];
    bool ok = status == 200 || status == 206, length = !script.no_length && !(script.extra && status == 206);

    if (!ok) {
        c->pos = 0;
        c->end = c->method == METHOD_HEAD ? 0 : 100;
    }
    snprintf(range, sizeof range, "bytes %llu-%llu/%llu", (unsigned long long)c->pos, (unsigned long long)c->end - 1,
             (unsigned long long)c->size);
    snprintf(etag, sizeof etag, script.etag ? script.etag : "%u", c->version);
    snprintf(version, sizeof version, "%u", c->version);
    if (status == 206) h[n++] = (struct hdr){STR_LIT("Content-Range"), str_c(range), HDR_CONTENT_RANGE};
    if (script.etag && ok) h[n++] = (struct hdr){STR_LIT("ETag"), str_c(etag), HDR_ETAG};
    if (script.no_store) h[n++] = (struct hdr){STR_LIT("Cache-Control"), STR_LIT("no-store"), HDR_CACHE_CONTROL};
    h[n++] = (struct hdr){STR_LIT("X-Version"), str_c(version), HDR_OTHER};
    int64_t body = length ? (int64_t)(c->end - c->pos) : -1;
    struct head head = {.status = status, .hdrs = h, .nhdrs = n, .minor = 1, .keep_alive = true, .content_length = body};
    if (c->method == METHOD_HEAD) {
        head.content_length = script.head_without_length ? -1 : (int64_t)c->size;
        body = 0;
    }
    c->headed = true;
    if (script.extra && status == 206) c->end += 1000;
    c->ev.head(c->arg, &head, body);
}

/* Some bytes; false: the call is gone, or paused. */
static bool call_body(struct call *c)
{
    struct iovec iov[8];
    uint64_t from = c->pos;

    while (c->pos < c->end && c->pos - from < TURN_BYTES) {
        if (script.cut && c->sent >= script.cut) {
            call_end(c, ERR_RESET);
            return false;
        }
        c->running = true;
        unsigned n = c->ev.space(c->arg, iov, 8);
        if (call_died(c)) return false;
        size_t put = 0, most = script.cut ? script.cut - c->sent : TURN_BYTES;
        for (unsigned i = 0; i < n && c->pos < c->end; i++)
            for (size_t b = 0; b < iov[i].iov_len && c->pos < c->end && put < most; b++, put++)
                ((uint8_t *)iov[i].iov_base)[b] = byte_at(c->version, c->pos++);
        if (put == 0) {
            c->paused = true;
            return false;
        }
        c->sent += put;
        atomic_fetch_add(&sent_bytes, put);
        c->running = true;
        c->ev.filled(c->arg, put);
        if (call_died(c)) return false;
    }
    return true;
}

static void call_step(struct call *c)
{
    if (!c->headed) {
        c->running = true;
        call_head(c);
        if (call_died(c)) return;
    }
    if (!call_body(c)) return;
    if (c->pos == c->end)
        call_end(c, ERR_OK);
    else
        timer_set(&c->timer, script.turn_ms);
}

static void call_timer(struct timer *t) { call_step(container_of(t, struct call, timer)); }
static void call_task(struct task *t) { call_step(container_of(t, struct call, task)); }

enum err origin_submit(struct origin_worker *w, const struct origin_request *r, const struct client_events *ev, void *arg,
                       struct origin_call **out)
{
    unsigned number = atomic_fetch_add(&requests, 1) + 1;
    struct call *c = script.nomem_at && number == script.nomem_at ? NULL : calloc(1, sizeof *c);

    if (!c) return ERR_NOMEM;
    if (r->method == METHOD_HEAD) atomic_fetch_add(&heads, 1);
    c->base.worker = w;
    c->ev = *ev;
    c->arg = arg;
    c->number = number;
    c->method = r->method;
    c->has_range = r->has_range;
    c->first = r->first;
    c->last = r->last;
    assert_true(!r->has_range || r->first <= r->last);
    if (r->if_match.n) memcpy(c->if_match, r->if_match.p, r->if_match.n);
    memcpy(c->name, r->path.p, r->path.n < sizeof c->name - 1 ? r->path.n : sizeof c->name - 1);
    c->size = strtoull(c->name + 1, NULL, 10);
    timer_init(&c->timer, w->loop, call_timer);
    task_init(&c->task, w->loop, call_task);
    timer_set(&c->timer, 1);
    *out = &c->base;
    return ERR_OK;
}

void origin_resume(struct origin_call *b)
{
    struct call *c = container_of(b, struct call, base);
    if (!c->paused) return;
    c->paused = false;
    task_schedule(&c->task);
}

void origin_cancel(struct origin_call *b)
{
    struct call *c = container_of(b, struct call, base);
    c->dead = true;
    if (!c->running) call_free(c);
}

enum err origin_create(const struct origin_conf *c, unsigned nworkers, struct disk *disk, struct origin **out, char *msg,
                       size_t n)
{
    (void)nworkers, (void)disk, (void)msg, (void)n;
    *out = calloc(1, sizeof **out);
    (*out)->conf = c;
    return ERR_OK;
}
void origin_destroy(struct origin *o) { free(o); }
void origin_set_meter(struct origin *o, struct meter memory) { (void)o, (void)memory; }
const struct origin_conf *origin_conf(const struct origin *o) { return o->conf; }
enum err origin_worker_create(struct origin *o, unsigned index, struct mailbox *mb, struct origin_worker **out)
{
    (void)index;
    *out = calloc(1, sizeof **out);
    (*out)->origin = o;
    (*out)->mailbox = mb;
    (*out)->loop = mailbox_loop(mb);
    return ERR_OK;
}
void origin_worker_destroy(struct origin_worker *w, void (*done)(void *arg), void *arg)
{
    free(w);
    done(arg);
}
struct origin_stats *origin_worker_stats(struct origin_worker *w) { return &w->stats; }
struct origin *origin_worker_origin(const struct origin_worker *w) { return w->origin; }
void origin_protocol_choice(const struct origin *o, const char **choice, const char **why)
{
    (void)o;
    *choice = "http/1.1";
    *why = "scripted";
}
void origin_protocol_seen(const struct origin *o, struct origin_protocol_seen *out)
{
    (void)o;
    *out = (struct origin_protocol_seen){0};
}

/* ---- the proxy ---- */

static struct proxy *proxy;
static unsigned port;

static unsigned free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void proxy_open(struct script s)
{
    char text[2048], msg[512];
    struct conf *c;

    script = s;
    atomic_store(&requests, 0);
    atomic_store(&heads, 0);
    atomic_store(&sent_bytes, 0);
    atomic_store(&versions, 1);
    port = free_port();
    snprintf(text, sizeof text,
             "workers: 3\n"
             "log: {level: error}\n"
             "shutdown_timeout: 2s\n"
             "caches: {main: {memory: %u, slice_size: %u, fresh_for: 1h}}\n"
             "origins: {o: {type: http, endpoint: 'http://127.0.0.1:9', retry: {attempts: 3, base: 1ms, cap: 5ms},\n"
             "              fetch: {part_size: %u, read_ahead: 2MiB, max_in_flight: 4}}}\n"
             "servers: [{listen: ['127.0.0.1:%u'], routes: [{path: /, origin: o, cache: main, auth: none}]}]\n",
             MEMORY, SS, PART, port);
    assert_int_equal(conf_parse("test", text, strlen(text), stderr, &c), ERR_OK);
    assert_int_equal(proxy_create(c, &proxy, msg, sizeof msg), ERR_OK);
    assert_int_equal(proxy_start(proxy, msg, sizeof msg), ERR_OK);
    conf_unref(c);
}

/* Parts that go on alone come to an end, and then nothing is reserved any more. */
static void proxy_close(void)
{
    struct cache_stats s;

    for (int i = 0; i < 1000; i++) {
        cache_get_stats(proxy->caches[0], &s);
        if (s.reserved_bytes == 0) break;
        usleep(10000);
    }
    assert_int_equal(s.reserved_bytes, 0);
    proxy_drain(proxy);
    proxy_join(proxy);
    proxy_destroy(proxy); /* insists on the cache being empty */
    proxy = NULL;
}

/* ---- clients ---- */

struct get {
    const char *path, *range;
    bool head;
    uint64_t leave_after; /* 0: never */
    unsigned pause_us;    /* between reads */
    unsigned stall_ms;    /* before the first read */
    /* what came */
    unsigned status, version;
    uint64_t length, got, offset;
    bool whole, wrong;
    pthread_t thread;
};

static int get_connect(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 25};
    int fd = socket(AF_INET, SOCK_STREAM, 0), small = 65536;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) abort();
    return fd;
}

static const char *field(const char *head, const char *name)
{
    for (const char *p = strstr(head, "\r\n"); p; p = strstr(p + 2, "\r\n"))
        if (strncasecmp(p + 2, name, strlen(name)) == 0 && p[2 + strlen(name)] == ':') return p + 3 + strlen(name);
    return NULL;
}

/* Returns what of buf is body. */
static size_t get_head(struct get *g, int fd, char *buf, size_t size)
{
    size_t n = 0;
    char *end = NULL;

    while (!end && n < size - 1) {
        ssize_t k = read(fd, buf + n, size - 1 - n);
        if (k <= 0) return 0;
        n += (size_t)k;
        buf[n] = 0;
        end = strstr(buf, "\r\n\r\n");
    }
    if (!end) return 0;
    *end = 0;
    g->status = (unsigned)atoi(buf + 9);
    const char *length = field(buf, "content-length"), *range = field(buf, "content-range"), *version = field(buf, "x-version");
    g->length = length ? strtoull(length, NULL, 10) : UINT64_MAX;
    if (range && g->status == 206) g->offset = strtoull(range + 7, NULL, 10);
    if (version) g->version = (unsigned)atoi(version);
    size_t body = n - (size_t)(end + 4 - buf);
    memmove(buf, end + 4, body);
    return body;
}

static void get_check(struct get *g, const char *buf, size_t n)
{
    bool data = g->status == 200 || g->status == 206;
    for (size_t i = 0; i < n && data && g->length != UINT64_MAX; i++)
        g->wrong = g->wrong || (uint8_t)buf[i] != byte_at(g->version, g->offset + g->got + i);
    g->got += n;
}

static void *get_main(void *arg)
{
    struct get *g = arg;
    char buf[32768], request[512];
    int fd = get_connect();
    int n = snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s%s%s\r\n",
                     g->head ? "HEAD" : "GET", g->path, g->range ? "Range: " : "", g->range ? g->range : "",
                     g->range ? "\r\n" : "");
    if (write(fd, request, (size_t)n) != n) { /* refused at once */
        close(fd);
        return NULL;
    }
    if (g->stall_ms) usleep(g->stall_ms * 1000);
    size_t first = get_head(g, fd, buf, sizeof buf);
    get_check(g, buf, first);
    for (;;) {
        if (g->leave_after && g->got >= g->leave_after) break;
        if (g->pause_us) usleep(g->pause_us);
        ssize_t k = read(fd, buf, sizeof buf);
        if (k <= 0) {
            g->whole = k == 0 && (g->head ? g->got == 0 : g->length == UINT64_MAX || g->got == g->length);
            break;
        }
        get_check(g, buf, (size_t)k);
    }
    close(fd);
    return NULL;
}

static void get_start(struct get *g) { assert_int_equal(pthread_create(&g->thread, NULL, get_main, g), 0); }

/* No wrong byte, and no clean end before the end. */
static void get_end(struct get *g)
{
    pthread_join(g->thread, NULL);
    assert_false(g->wrong);
    if (g->length != UINT64_MAX) assert_true(g->got <= g->length);
}

static struct get get(const char *path, const char *range)
{
    struct get g = {.path = path, .range = range};
    get_main(&g);
    assert_false(g.wrong);
    return g;
}

static bool good(const struct get *g, uint64_t length)
{
    return (g->status == 200 || g->status == 206) && g->whole && g->got == length;
}

#define GOOD(g, n) \
    do { \
        struct get got_ = (g); \
        if (!good(&got_, n)) fail_msg("line %d: %s: status %u, %llu of %llu bytes", __LINE__, got_.path, got_.status, \
                                      (unsigned long long)got_.got, (unsigned long long)(n)); \
    } while (0)

#define STRONG .etag = "\"v%u\""
#define WEAK .etag = "W/\"v%u\""

/* ---- tests ---- */

static void sizes_and_ranges_around_slices_and_parts(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, SS - 1, SS, SS + 1, PART - 1, PART, PART + 1, 3 * PART + 5, 2 * MEMORY};
    proxy_open((struct script){STRONG});
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        char path[64], range[64];
        uint64_t n = sizes[i];
        snprintf(path, sizeof path, "/%llu/a", (unsigned long long)n);
        atomic_store(&sent_bytes, 0);
        GOOD(get(path, NULL), n);
        assert_int_equal(atomic_load(&sent_bytes), n); /* once, whatever the cache's size */
        GOOD(get(path, NULL), n);
        GOOD(get(path, "bytes=0-0"), 1);
        GOOD(get(path, "bytes=-1"), 1);
        snprintf(range, sizeof range, "bytes=%llu-", (unsigned long long)n / 2);
        GOOD(get(path, range), n - n / 2);
        snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)n / 3, (unsigned long long)n / 2);
        GOOD(get(path, range), n / 2 - n / 3 + 1);
        snprintf(range, sizeof range, "bytes=%llu-", (unsigned long long)n);
        assert_int_equal(get(path, range).status, 416);
        snprintf(path, sizeof path, "/%llu/b", (unsigned long long)n); /* cold, from the end */
        GOOD(get(path, "bytes=-7"), n < 7 ? n : 7);
    }
    GOOD(get("/0/a", NULL), 0);
    assert_int_equal(get("/0/a", "bytes=0-0").status, 416);
    GOOD(get("/0/a", NULL), 0);
    proxy_close();
}

static void many_clients_of_one_cold_object_cost_it_once(void **state)
{
    (void)state;
    struct get g[64];
    proxy_open((struct script){STRONG});
    for (unsigned i = 0; i < 64; i++) g[i] = (struct get){.path = "/700000/x"};
    for (unsigned i = 0; i < 64; i++) get_start(&g[i]);
    for (unsigned i = 0; i < 64; i++) {
        get_end(&g[i]);
        GOOD(g[i], 700000);
    }
    assert_int_equal(atomic_load(&sent_bytes), 700000);
    proxy_close();
}

/* Sixteen slices for 64 readers of objects four times the cache: all come through or are told to come back later. */
static void many_big_objects_in_a_tiny_cache_progress(void **state)
{
    (void)state;
    struct get g[64];
    char path[64][32];
    unsigned served = 0;
    proxy_open((struct script){STRONG});
    for (unsigned i = 0; i < 64; i++) {
        snprintf(path[i], sizeof path[i], "/%u/big%u", 4 * MEMORY, i);
        g[i] = (struct get){.path = path[i]};
        get_start(&g[i]);
    }
    for (unsigned i = 0; i < 64; i++) {
        get_end(&g[i]);
        assert_true(g[i].status == 503 || good(&g[i], 4 * MEMORY));
        served += g[i].status == 200;
    }
    assert_true(served >= 32);
    assert_true(atomic_load(&sent_bytes) < UINT64_C(64) * 4 * MEMORY * 2);
    proxy_close();
}

static void a_slow_reader_of_a_fast_stream_costs_one_request(void **state)
{
    (void)state;
    for (int validated = 0; validated < 2; validated++) {
        proxy_open((struct script){.no_ranges = true, .etag = validated ? "\"v%u\"" : NULL});
        struct get g = {.path = "/3000000/x", .pause_us = 3000};
        get_start(&g);
        get_end(&g);
        GOOD(g, 3000000);
        assert_int_equal(atomic_load(&requests), 1);
        assert_int_equal(atomic_load(&sent_bytes), 3000000);
        proxy_close();
    }
}

static void readers_share_a_stream_although_its_leader_leaves(void **state)
{
    (void)state;
    struct get g[8];
    proxy_open((struct script){STRONG, .no_ranges = true, .turn_ms = 2});
    for (unsigned i = 0; i < 8; i++) {
        g[i] = (struct get){.path = "/3000000/x", .leave_after = i == 0 ? 200000 : 0, .pause_us = i == 3 ? 2000 : 0};
        get_start(&g[i]);
        usleep(i == 0 ? 20000 : 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        get_end(&g[i]);
        if (i) GOOD(g[i], 3000000);
    }
    assert_true(atomic_load(&requests) <= 8);
    proxy_close();
}

static void ranges_of_an_origin_without_ranges(void **state)
{
    (void)state;
    proxy_open((struct script){STRONG, .no_ranges = true});
    GOOD(get("/3000000/x", "bytes=2500000-2600000"), 100001);
    GOOD(get("/3000000/x", "bytes=100-200"), 101);
    GOOD(get("/3000000/x", "bytes=-5"), 5);
    GOOD(get("/300000/y", "bytes=200000-"), 100000);
    GOOD(get("/300000/y", NULL), 300000);
    proxy_close();
}

/* The reader furthest ahead is gone, and what the one behind needs was passed by and evicted. */
static void readers_behind_a_stream_get_their_own(void **state)
{
    (void)state;
    struct get g[6];
    proxy_open((struct script){STRONG, .no_ranges = true});
    for (unsigned i = 0; i < 6; i++) {
        g[i] = (struct get){.path = "/6000000/x", .pause_us = i * 400, .leave_after = i == 0 ? 4000000 : 0};
        get_start(&g[i]);
    }
    for (unsigned i = 0; i < 6; i++) {
        get_end(&g[i]);
        if (i) GOOD(g[i], 6000000);
    }
    assert_true(atomic_load(&requests) < 60);
    proxy_close();
}

static void an_origin_that_stops_honouring_ranges(void **state)
{
    (void)state;
    for (unsigned from = 2; from < 6; from++) {
        proxy_open((struct script){STRONG, .whole_from = from});
        GOOD(get("/4000000/x", NULL), 4000000);
        GOOD(get("/4000000/x", "bytes=3000000-3999999"), 1000000);
        assert_true(atomic_load(&requests) < 30);
        proxy_close();
    }
}

/* Weak tags and no tags at all: each body is of one version, and none is joined from two answers. */
static void without_strong_validators_answers_are_never_joined(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 100000, PART - 1, PART + 1, 3 * PART, 3 * MEMORY};
    for (int how = 0; how < 4; how++) {
        struct script s = {.etag = how & 1 ? "W/\"v\"" : NULL, .no_ranges = how & 2, .always_new = true};
        for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
            char path[64];
            struct get g[6];
            snprintf(path, sizeof path, "/%llu/x", (unsigned long long)sizes[i]);
            proxy_open(s);
            for (unsigned k = 0; k < 6; k++) {
                g[k] = (struct get){.path = path, .range = k == 2 ? "bytes=-100" : NULL, .pause_us = k * 100};
                get_start(&g[k]);
            }
            for (unsigned k = 0; k < 6; k++) {
                get_end(&g[k]);
                assert_true(g[k].status == 200 || g[k].status == 206);
                if (sizes[i] < MEMORY / 4 || k == 0) GOOD(g[k], k == 2 && sizes[i] > 100 ? 100 : sizes[i]);
            }
            for (unsigned k = 0; k < 4; k++) {
                char other[64];
                snprintf(other, sizeof other, "/%u/evict%u", MEMORY / 2, k);
                get(other, NULL);
                GOOD(get(path, NULL), sizes[i]);
            }
            proxy_close();
        }
    }
}

static void a_change_before_the_first_byte_is_not_noticed(void **state)
{
    (void)state;
    proxy_open((struct script){STRONG, .change_at = 2});
    struct get h = {.path = "/3000000/x", .head = true};
    get_main(&h);
    assert_int_equal(h.status, 200);
    assert_int_equal(h.version, 1);
    struct get g = get("/3000000/x", NULL);
    GOOD(g, 3000000);
    assert_int_equal(g.version, 2);
    proxy_close();
}

static void a_change_after_it_breaks_the_connection(void **state)
{
    (void)state;
    unsigned broken = 0;
    for (unsigned at = 3; at < 6; at++) {
        proxy_open((struct script){STRONG, .change_at = at});
        struct get g = get("/6000000/x", NULL);
        assert_true(g.status == 200);
        assert_true(g.whole == (g.got == 6000000));
        broken += !g.whole;
        g = get("/6000000/x", NULL);
        GOOD(g, 6000000);
        assert_int_equal(g.version, 2);
        proxy_close();
    }
    assert_int_equal(broken, 3);
}

/* Who waits for its bytes is told; who comes there later asks again. */
static void a_range_that_was_not_asked_for_is_refused(void **state)
{
    (void)state;
    for (unsigned at = 2; at < 4; at++) {
        proxy_open((struct script){STRONG, .wrong_at = at});
        struct get g = get("/3000000/x", NULL);
        assert_true(g.status == 200 && g.whole == (g.got == 3000000));
        GOOD(get("/3000000/x", NULL), 3000000);
        proxy_close();
    }
    proxy_open((struct script){STRONG, .wrong_at = 1});
    assert_int_equal(get("/3000000/x", "bytes=1000000-1000001").status, 502);
    proxy_close();
}

static void connections_that_break_are_resumed(void **state)
{
    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        proxy_open((struct script){STRONG, .cut = whole ? 500000 : 100000});
        GOOD(get("/1500000/x", NULL), 1500000);
        assert_int_equal(atomic_load(&sent_bytes), 1500000);
        proxy_close();
    }
    /* Nothing can be resumed without validators: the body breaks, it does not end. */
    proxy_open((struct script){.cut = 300000});
    struct get g = get("/200000/x", NULL);
    GOOD(g, 200000);
    g = get("/400000/x", NULL);
    assert_true(g.status >= 500 || (g.status == 200 && !g.whole));
    proxy_close();
}

static void more_bytes_than_promised_are_cut_off(void **state)
{
    (void)state;
    proxy_open((struct script){STRONG, .extra = true});
    GOOD(get("/3000000/x", NULL), 3000000);
    GOOD(get("/100000/y", NULL), 100000);
    GOOD(get("/524288/z", NULL), 524288);
    proxy_close();
}

static void overload_of_the_origin_is_ridden_out_or_told_to_all(void **state)
{
    (void)state;
    struct get g[16];
    proxy_open((struct script){STRONG, .status = 503, .from = 1, .to = 3});
    GOOD(get("/3000000/x", NULL), 3000000);
    proxy_close();
    proxy_open((struct script){STRONG, .status = 503, .from = 2, .to = 4});
    GOOD(get("/3000000/x", NULL), 3000000);
    proxy_close();
    proxy_open((struct script){STRONG, .status = 503, .from = 1, .to = 1000000});
    for (unsigned i = 0; i < 16; i++) {
        g[i] = (struct get){.path = "/3000000/x"};
        get_start(&g[i]);
    }
    for (unsigned i = 0; i < 16; i++) {
        get_end(&g[i]);
        assert_int_equal(g[i].status, 503);
    }
    assert_true(atomic_load(&requests) <= 16 * 3);
    proxy_close();
}

static void an_object_that_vanishes_in_between(void **state)
{
    (void)state;
    for (unsigned from = 2; from < 4; from++) {
        proxy_open((struct script){STRONG, .status = 404, .from = from, .to = 1000});
        struct get g = get("/3000000/x", NULL);
        assert_true(g.status == 200 && !g.whole);
        assert_int_equal(get("/3000000/x", NULL).status, 404);
        proxy_close();
    }
}

static void what_may_not_be_stored_makes_no_storm(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct get g[16];
        proxy_open((struct script){.etag = how ? "\"v%u\"" : NULL, .no_store = true, .no_ranges = how == 2});
        for (int wave = 0; wave < 2; wave++) {
            for (unsigned i = 0; i < 16; i++) {
                g[i] = (struct get){.path = "/60000/x", .leave_after = i % 5 == 4 ? 1000 : 0};
                get_start(&g[i]);
            }
            for (unsigned i = 0; i < 16; i++) {
                get_end(&g[i]);
                if (i % 5 != 4) GOOD(g[i], 60000);
            }
        }
        if (atomic_load(&requests) > 2 * 16 * 2) fail_msg("%u requests", atomic_load(&requests));
        GOOD(get("/4000000/y", NULL), 4000000);
        proxy_close();
    }
}

static void bodies_of_unknown_length_pass(void **state)
{
    (void)state;
    struct get g[8];
    proxy_open((struct script){STRONG, .no_length = true, .no_ranges = true});
    for (unsigned i = 0; i < 8; i++) {
        g[i] = (struct get){.path = "/1000000/x", .leave_after = i == 0 ? 1000 : 0, .range = i == 1 ? "bytes=-5" : NULL};
        get_start(&g[i]);
    }
    for (unsigned i = 0; i < 8; i++) {
        get_end(&g[i]);
        assert_true(g[i].status == 200 || (i == 1 && good(&g[i], 5)));
        if (i > 1) assert_true(g[i].got >= 1000000); /* some are chunked */
    }
    proxy_close();
}

/* HEAD does not tell the length: the suffix cannot be worked out, so all of it is sent - not nothing. */
static void a_suffix_of_unknown_length_is_everything(void **state)
{
    (void)state;
    proxy_open((struct script){STRONG, .head_without_length = true, .no_ranges = true});
    struct get g = get("/100000/x", "bytes=-5");
    assert_true(good(&g, 5) || good(&g, 100000));
    proxy_close();
    proxy_open((struct script){STRONG, .head_without_length = true, .no_ranges = true, .no_length = true});
    g = get("/100000/x", "bytes=-5");
    assert_int_equal(g.status, 200);
    assert_true(g.got >= 100000);
    proxy_close();
}

static void calls_that_get_no_memory_fail_cleanly(void **state)
{
    (void)state;
    for (unsigned at = 1; at < 7; at++) {
        for (int seq = 0; seq < 2; seq++) {
            struct get g[4];
            proxy_open((struct script){STRONG, .nomem_at = at, .no_ranges = seq});
            for (unsigned i = 0; i < 4; i++) {
                g[i] = (struct get){.path = "/3000000/x"};
                get_start(&g[i]);
            }
            for (unsigned i = 0; i < 4; i++) {
                get_end(&g[i]);
                assert_true(g[i].status == 503 || g[i].status == 500 || (g[i].status == 200 && g[i].got <= 3000000));
                assert_true(g[i].status != 200 || g[i].whole == (g[i].got == 3000000));
            }
            GOOD(get("/3000000/x", NULL), 3000000);
            proxy_close();
        }
    }
}

/* Readers that stand still hold little: others get on. */
static void readers_that_stand_still_do_not_stop_others(void **state)
{
    (void)state;
    struct get slow[12], g[12];
    char path[24][32];
    for (int seq = 0; seq < 2; seq++) {
        proxy_open((struct script){STRONG, .no_ranges = seq});
        for (unsigned i = 0; i < 12; i++) {
            snprintf(path[i], sizeof path[i], "/%u/slow%u", 4 * MEMORY, i);
            slow[i] = (struct get){.path = path[i], .stall_ms = 4000};
            get_start(&slow[i]);
        }
        usleep(200000);
        for (unsigned i = 0; i < 12; i++) {
            snprintf(path[12 + i], sizeof path[0], "/%u/quick%u", MEMORY, i);
            g[i] = (struct get){.path = path[12 + i]};
            get_start(&g[i]);
        }
        for (unsigned i = 0; i < 12; i++) {
            get_end(&g[i]);
            GOOD(g[i], MEMORY);
        }
        for (unsigned i = 0; i < 12; i++) {
            get_end(&slow[i]);
            GOOD(slow[i], 4 * MEMORY);
        }
        proxy_close();
    }
}

static void clients_that_come_and_go_leave_nothing_behind(void **state)
{
    (void)state;
    static const char *const paths[] = {"/3000000/a", "/100/b", "/700000/c", "/65536/d"};
    static const char *const ranges[] = {NULL, "bytes=100000-", "bytes=-70000", "bytes=0-65535"};
    for (int how = 0; how < 6; how++) {
        proxy_open((struct script){.etag = how % 3 == 2 ? NULL : "\"v%u\"", .no_ranges = how % 2, .no_store = how == 3,
                                   .cut = how == 4 ? 150000 : 0});
        for (unsigned wave = 0; wave < 4; wave++) {
            struct get g[24];
            for (unsigned i = 0; i < 24; i++) {
                unsigned k = i * 7 + wave * 5 + (unsigned)how;
                g[i] = (struct get){.path = paths[k % 4], .range = ranges[k / 4 % 4], .leave_after = k % 3 ? 1 + k * 9000 : 0,
                                    .pause_us = k % 5 ? 0 : 500, .head = k % 11 == 0};
                get_start(&g[i]);
                if (i % 6 == 5) usleep(3000);
            }
            for (unsigned i = 0; i < 24; i++) get_end(&g[i]);
            cache_purge(proxy->caches[0], wave % 2 ? PURGE_ALL : PURGE_PREFIX, (struct str){NULL, 0});
        }
        proxy_close();
    }
}

#define T(f) cmocka_unit_test(f)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        T(sizes_and_ranges_around_slices_and_parts),
        T(many_clients_of_one_cold_object_cost_it_once),
        T(many_big_objects_in_a_tiny_cache_progress),
        T(a_slow_reader_of_a_fast_stream_costs_one_request),
        T(readers_share_a_stream_although_its_leader_leaves),
        T(ranges_of_an_origin_without_ranges),
        T(readers_behind_a_stream_get_their_own),
        T(an_origin_that_stops_honouring_ranges),
        T(without_strong_validators_answers_are_never_joined),
        T(a_change_before_the_first_byte_is_not_noticed),
        T(a_change_after_it_breaks_the_connection),
        T(a_range_that_was_not_asked_for_is_refused),
        T(connections_that_break_are_resumed),
        T(more_bytes_than_promised_are_cut_off),
        T(overload_of_the_origin_is_ridden_out_or_told_to_all),
        T(an_object_that_vanishes_in_between),
        T(what_may_not_be_stored_makes_no_storm),
        T(bodies_of_unknown_length_pass),
        T(a_suffix_of_unknown_length_is_everything),
        T(calls_that_get_no_memory_fail_cleanly),
        T(readers_that_stand_still_do_not_stop_others),
        T(clients_that_come_and_go_leave_nothing_behind),
    };
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    if (hash_init() != ERR_OK || log_open("/dev/null", LOG_ERROR) != ERR_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
