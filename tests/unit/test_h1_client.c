/* test_h1_client.c - a connection to an origin over real sockets and a real loop, the origin being scripted here.
 * One thread: the test writes to the origin's end, lets the loop turn, and looks at what came. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "h1_support.h"
#include "http/h1_client.h"

static struct h1_client *client;
static struct h1_limits limits;
static struct client_timeouts timeouts;
static int origin; /* its end of the connection */

/* ---- the receiver */
enum cancel_in { CANCEL_NEVER, CANCEL_IN_HEAD, CANCEL_IN_SPACE, CANCEL_IN_FILLED, CANCEL_IN_END };
static struct {
    unsigned heads, ends, fills, spaces;
    unsigned status;
    int64_t body_length;
    enum err why;
    uint8_t *body; /* PATTERN bytes of room */
    size_t got, room_left, step; /* room_left: pauses at 0; step: most space per call */
    unsigned pieces;              /* iovecs that the space is given in */
    size_t offered;
    enum cancel_in cancel;
    bool destroy; /* instead of cancel */
} r;
static unsigned released, released_reusable, idle_closed;
static bool destroy_on_release;

static void maybe_cancel(enum cancel_in where)
{
    if (r.cancel != where) return;
    if (r.destroy) {
        h1_client_destroy(client);
        client = NULL;
    } else {
        h1_client_cancel(client);
    }
}
static void on_head(void *arg, const struct head *resp, int64_t body_length)
{
    assert_ptr_equal(arg, &r);
    assert_int_equal(r.heads, 0);
    r.heads++;
    r.status = resp->status;
    r.body_length = body_length;
    maybe_cancel(CANCEL_IN_HEAD);
}
static unsigned on_space(void *arg, struct iovec *iov, unsigned max)
{
    (void)arg;
    assert_int_equal(r.heads, 1);
    assert_int_equal(r.offered, 0); /* the last space was filled */
    r.spaces++;
    size_t room = r.room_left < r.step ? r.room_left : r.step;
    if (room > PATTERN + 1000 - r.got) room = PATTERN + 1000 - r.got;
    unsigned n = 0;
    for (size_t at = 0; at < room && n < max;) {
        size_t len = (room + r.pieces - 1) / r.pieces;
        if (len > room - at) len = room - at;
        iov[n++] = (struct iovec){r.body + r.got + at, len};
        at += len;
        r.offered += len;
    }
    maybe_cancel(CANCEL_IN_SPACE);
    return n;
}
static void on_filled(void *arg, size_t n)
{
    (void)arg;
    assert_true(n > 0 && n <= r.offered);
    r.offered = 0;
    r.fills++;
    r.got += n;
    r.room_left -= n;
    maybe_cancel(CANCEL_IN_FILLED);
}
static void on_end(void *arg, enum err e)
{
    (void)arg;
    assert_int_equal(r.ends, 0);
    r.ends++;
    r.why = e;
    maybe_cancel(CANCEL_IN_END);
}
static const struct client_events events = {on_head, on_space, on_filled, on_end};

static void on_released(void *arg, struct h1_client *c, bool reusable)
{
    assert_ptr_equal(arg, &client);
    assert_ptr_equal(c, client);
    released++;
    released_reusable += reusable;
    if (!destroy_on_release) return;
    h1_client_destroy(c);
    client = NULL;
}
static void on_idle_closed(void *arg, struct h1_client *c)
{
    (void)arg;
    idle_closed++;
    h1_client_destroy(c);
    client = NULL;
}
static const struct h1_client_owner owner = {on_released, on_idle_closed};

/* ---- a request body */
static struct {
    struct body body;
    size_t size, at, stop_at;
    enum err stop_err;
    unsigned closed, open;
    size_t max_open;
    size_t open_bytes;
} upload;
static void upload_release(void *o, enum chunk_end how)
{
    assert_int_equal(how, CHUNK_COPIED);
    upload.open--;
    upload.open_bytes -= (size_t)(uintptr_t)o;
}
static enum err upload_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    (void)b, (void)max;
    size_t limit = upload.stop_err ? upload.stop_at : upload.size, len = limit - upload.at;
    if (!len) return upload.stop_err ? upload.stop_err : ERR_END;
    if (len > max_bytes) len = max_bytes;
    *out = (struct chunk){pattern + upload.at, len, -1, 0, (void *)(uintptr_t)len, upload_release};
    upload.at += len;
    upload.open++;
    upload.open_bytes += len;
    if (upload.open_bytes > upload.max_open) upload.max_open = upload.open_bytes;
    *n = 1;
    return ERR_OK;
}
static void upload_close(struct body *b)
{
    (void)b;
    upload.closed++;
}
static const struct body_ops upload_ops = {upload_pull, upload_close};

static void connect_client(void)
{
    struct stream *s;
    origin = connect_pair(&s);
    assert_int_equal(h1_client_create(s, &limits, &timeouts, &owner, &client, &client), ERR_OK);
}

static int setup(void **state)
{
    (void)state;
    pattern_fill();
    uint8_t *body = r.body ? r.body : malloc(PATTERN + 1000);
    memset(&r, 0, sizeof(r));
    r.body = body;
    r.room_left = r.step = SIZE_MAX;
    r.pieces = 3;
    memset(&upload, 0, sizeof(upload));
    released = released_reusable = idle_closed = 0;
    destroy_on_release = false;
    limits = (struct h1_limits){.head_bytes = 8192, .target_bytes = 1024, .headers = 32};
    timeouts = (struct client_timeouts){60000, 60000, 60000, 60000};
    assert_int_equal(loop_create(&loop), ERR_OK);
    connect_client();
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    if (client) h1_client_destroy(client);
    client = NULL;
    close(origin);
    loop_destroy(loop);
    assert_int_equal(upload.open, 0);
    return 0;
}

/* ---- the origin */
static char heard[2 << 20];
static size_t heard_n;
static int heard_errno; /* -1: end */
static const char *hear(void)
{
    heard_n = 0;
    heard_errno = 0;
    pump();
    while (heard_n < sizeof(heard) - 1) {
        ssize_t n = recv(origin, heard + heard_n, sizeof(heard) - 1 - heard_n, 0);
        if (n <= 0) {
            if (n == 0) heard_errno = -1;
            else if (errno != EAGAIN) heard_errno = errno;
            break;
        }
        heard_n += (size_t)n;
        pump();
    }
    heard[heard_n] = 0;
    return heard;
}
#define assert_heard(part) assert_non_null(strstr(heard, part))
#define assert_not_heard(part) assert_null(strstr(heard, part))
static void say_n(const void *data, size_t n)
{
    const char *p = data;
    while (n) {
        ssize_t w = send(origin, p, n, MSG_NOSIGNAL);
        if (w < 0 && errno == EAGAIN) {
            pump();
            continue;
        }
        assert_true(w > 0);
        p += w;
        n -= (size_t)w;
    }
    pump();
}
static void say(const char *text)
{
    say_n(text, strlen(text));
}
static void origin_reset(void)
{
    struct linger now = {1, 0};
    setsockopt(origin, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(origin);
    origin = -1;
    pump();
}

static struct client_request req;
static void get(void)
{
    static const struct hdr h = {STR_LIT("X-A"), STR_LIT("b"), HDR_OTHER};
    req = (struct client_request){.method = STR_LIT("GET"), .target = STR_LIT("/k?v"), .method_id = METHOD_GET,
                                  .authority = STR_LIT("o:1"), .hdrs = &h, .nhdrs = 1};
    h1_client_send(client, &req, &events, &r);
    assert_int_equal(r.heads + r.ends, 0);
    hear();
}
static void put_body(size_t size, int64_t length, bool expect)
{
    upload.body.ops = &upload_ops;
    upload.size = size;
    req = (struct client_request){.method = STR_LIT("PUT"), .target = STR_LIT("/k"), .method_id = METHOD_PUT,
                                  .authority = STR_LIT("o:1"), .body = &upload.body, .body_length = length,
                                  .expect_continue = expect};
    h1_client_send(client, &req, &events, &r);
}
static void assert_ended(enum err e, bool reusable)
{
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.why, e);
    assert_int_equal(released, 1);
    assert_int_equal(released_reusable, reusable);
}
static void next_request(void)
{
    r.heads = r.ends = 0;
    r.got = r.offered = 0;
    released = released_reusable = 0;
    get();
}

/* ---- tests */

static void get_goes_out_and_the_response_comes_in(void **state)
{
    (void)state;
    get();
    assert_string_equal(heard, "GET /k?v HTTP/1.1\r\nHost: o:1\r\nX-A: b\r\n\r\n");
    assert_false(h1_client_got_bytes(client));
    assert_int_equal(h1_client_requests(client), 0);
    say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_int_equal(r.status, 200);
    assert_int_equal(r.body_length, 5);
    assert_memory_equal(r.body, "hello", 5);
    assert_ended(ERR_OK, true);
    assert_true(h1_client_got_bytes(client));
    assert_int_equal(h1_client_requests(client), 1);
    next_request();
    assert_heard("GET /k?v");
    say("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(r.status, 404);
    assert_ended(ERR_OK, true);
    assert_int_equal(idle_closed, 0);
}

static void byte_at_a_time_response_is_whole(void **state)
{
    (void)state;
    static const char *const text[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x\r\nllo\r\n0\r\nT: v\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    };
    for (size_t i = 0; i < ARRAY_LEN(text); i++) {
        next_request();
        for (const char *p = text[i]; *p; p++) say_n(p, 1);
        assert_int_equal(r.got, 5);
        assert_memory_equal(r.body, "hello", 5);
        assert_ended(ERR_OK, true);
        next_request();
        say(text[i]);
        assert_int_equal(r.got, 5);
        assert_memory_equal(r.body, "hello", 5);
        assert_ended(ERR_OK, true);
    }
}

static void big_body_is_read_into_the_receivers_space(void **state)
{
    (void)state;
    r.step = 700 * 1000;
    get();
    say("HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n");
    say_n(pattern, PATTERN);
    assert_int_equal(r.got, PATTERN);
    assert_memory_equal(r.body, pattern, PATTERN);
    assert_ended(ERR_OK, true);
}

static void big_chunked_body_is_read(void **state)
{
    (void)state;
    r.step = 300 * 1000;
    get();
    say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_int_equal(r.body_length, -1);
    size_t at = 0;
    for (size_t len = 1; at < 4 << 20; len = len * 3 % 1000003) {
        char line[32];
        size_t n = len < (4 << 20) - at ? len : (4 << 20) - at;
        snprintf(line, sizeof(line), "%zX\r\n", n);
        say(line);
        say_n(pattern + at, n);
        say("\r\n");
        at += n;
    }
    assert_int_equal(r.ends, 0);
    say("0\r\n\r\n");
    assert_int_equal(r.got, at);
    assert_memory_equal(r.body, pattern, at);
    assert_ended(ERR_OK, true);
}

static void no_space_pauses_until_resume(void **state)
{
    (void)state;
    timeouts.stall_ms = 50;
    h1_client_destroy(client);
    close(origin);
    connect_client();
    r.room_left = 100000;
    get();
    say("HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n");
    size_t sent = 0;
    for (;;) {
        ssize_t w = send(origin, pattern + sent, PATTERN - sent, MSG_NOSIGNAL);
        pump();
        if (w < 0) break;
        sent += (size_t)w;
    }
    assert_int_equal(r.got, 100000);
    assert_true(sent < PATTERN); /* the socket pushes back */
    unsigned spaces = r.spaces;
    pump_ms(120); /* longer than the stall time: the pause is ours */
    assert_int_equal(r.spaces, spaces);
    assert_int_equal(r.ends, 0);
    r.room_left = SIZE_MAX;
    h1_client_resume(client);
    assert_int_equal(r.got, 100000); /* not from inside */
    pump();
    say_n(pattern + sent, PATTERN - sent);
    assert_int_equal(r.got, PATTERN);
    assert_memory_equal(r.body, pattern, PATTERN);
    assert_ended(ERR_OK, true);
}

static void body_until_close_ends_with_fin(void **state)
{
    (void)state;
    get();
    say("HTTP/1.1 200 OK\r\n\r\nhello");
    assert_int_equal(r.body_length, -1);
    assert_int_equal(r.ends, 0);
    shutdown(origin, SHUT_WR);
    pump();
    assert_int_equal(r.got, 5);
    assert_ended(ERR_OK, false);
}

static void body_until_close_that_is_reset_is_broken(void **state)
{
    (void)state;
    get();
    say("HTTP/1.1 200 OK\r\n\r\nhello");
    origin_reset();
    assert_ended(ERR_RESET, false);
}

static void short_bodies_are_truncated(void **state)
{
    (void)state;
    static const char *const text[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(text); i++) {
        h1_client_destroy(client);
        close(origin);
        connect_client();
        next_request();
        say(text[i]);
        assert_int_equal(r.ends, 0);
        shutdown(origin, SHUT_WR);
        pump();
        assert_int_equal(r.got, 5);
        assert_ended(ERR_TRUNCATED, false);
    }
}

static void bad_responses_are_protocol_errors(void **state)
{
    (void)state;
    static const char *const text[] = {
        "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 101 x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(text); i++) {
        h1_client_destroy(client);
        close(origin);
        connect_client();
        next_request();
        say(text[i]);
        assert_ended(ERR_PROTOCOL, false);
    }
    h1_client_destroy(client);
    close(origin);
    connect_client();
    next_request();
    for (int i = 0; i < 20; i++) {
        ssize_t w = send(origin, "HTTP/1.1 102 x\r\n\r\n", 18, MSG_NOSIGNAL);
        (void)w;
    }
    pump();
    assert_ended(ERR_PROTOCOL, false);
}

static void closed_before_a_response_is_told(void **state)
{
    (void)state;
    get();
    shutdown(origin, SHUT_WR);
    pump();
    assert_ended(ERR_CLOSED, false);
    assert_false(h1_client_got_bytes(client));
    h1_client_destroy(client);
    connect_client();
    next_request();
    origin_reset();
    assert_ended(ERR_RESET, false);
    assert_false(h1_client_got_bytes(client));
}

static void responses_without_body(void **state)
{
    (void)state;
    req = (struct client_request){.method = STR_LIT("HEAD"), .target = STR_LIT("/"), .method_id = METHOD_HEAD,
                                  .authority = STR_LIT("o")};
    h1_client_send(client, &req, &events, &r);
    pump();
    say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
    assert_int_equal(r.body_length, 0);
    assert_ended(ERR_OK, true);
    hear();
    next_request();
    say("HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n");
    assert_ended(ERR_OK, true);
    next_request();
    say("HTTP/1.1 204 No Content\r\n\r\n");
    assert_ended(ERR_OK, true);
    assert_int_equal(r.spaces, 0);
}

static void not_reusable_when_the_origin_says_or_shows_it(void **state)
{
    (void)state;
    static const char *const text[] = {
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(text); i++) {
        h1_client_destroy(client);
        close(origin);
        connect_client();
        next_request();
        say(text[i]);
        assert_int_equal(r.got, 5);
        assert_ended(ERR_OK, false);
    }
    h1_client_destroy(client);
    close(origin);
    connect_client();
    next_request();
    /* surplus behind a direct read, and a FIN that comes with the last bytes */
    say("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
    send(origin, pattern, 100001, MSG_NOSIGNAL);
    pump();
    assert_int_equal(r.got, 100000);
    assert_ended(ERR_OK, false);
    h1_client_destroy(client);
    close(origin);
    connect_client();
    next_request();
    send(origin, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 43, MSG_NOSIGNAL);
    shutdown(origin, SHUT_WR);
    pump();
    assert_ended(ERR_OK, false);
}

static void idle_close_and_unasked_bytes_are_noticed(void **state)
{
    (void)state;
    get();
    say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_ended(ERR_OK, true);
    shutdown(origin, SHUT_WR);
    pump();
    assert_int_equal(idle_closed, 1);
    assert_null(client);
    close(origin);
    connect_client();
    pump();
    say("x");
    assert_int_equal(idle_closed, 2);
}

static void upload_with_length_and_chunked(void **state)
{
    (void)state;
    put_body(1000000, 1000000, false);
    hear();
    assert_heard("\r\nContent-Length: 1000000\r\n");
    char *body = strstr(heard, "\r\n\r\n") + 4;
    assert_int_equal(heard + heard_n - body, 1000000);
    assert_memory_equal(body, pattern, 1000000);
    assert_true(h1_client_sent_body(client));
    assert_int_equal(upload.closed, 1);
    say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_ended(ERR_OK, true);

    r.heads = r.ends = 0;
    released = released_reusable = 0;
    memset(&upload, 0, sizeof(upload));
    upload.stop_at = 5;
    upload.stop_err = ERR_AGAIN;
    put_body(10, -1, false);
    hear();
    assert_heard("\r\nTransfer-Encoding: chunked\r\n");
    body = strstr(heard, "\r\n\r\n") + 4;
    assert_memory_equal(body, "5\r\n", 3);
    assert_memory_equal(body + 3, pattern, 5);
    assert_int_equal(heard + heard_n - body, 10);
    upload.stop_err = ERR_OK;
    body_notify(&upload.body);
    hear();
    assert_int_equal(heard_n, 3 + 5 + 7);
    assert_memory_equal(heard + 8, "\r\n0\r\n\r\n", 7);
    say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_ended(ERR_OK, true);
}

static void upload_is_held_back_by_a_slow_origin(void **state)
{
    (void)state;
    put_body(PATTERN, PATTERN, false);
    pump();
    size_t at = upload.at;
    pump();
    assert_true(at < PATTERN && upload.at == at);
    assert_true(upload.max_open <= 1 << 20);
    size_t got = 0;
    bool body = false;
    while (got < PATTERN) {
        ssize_t n = recv(origin, heard, 100 * 1000, 0);
        if (n < 0) {
            pump();
            continue;
        }
        char *p = heard;
        if (!body) {
            p = memmem(heard, (size_t)n, "\r\n\r\n", 4);
            assert_non_null(p);
            p += 4;
            body = true;
        }
        size_t len = (size_t)(heard + n - p);
        assert_memory_equal(p, pattern + got, len);
        got += len;
    }
    assert_true(upload.max_open <= 1 << 20);
    say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_ended(ERR_OK, true);
}

static void expect_waits_for_100_or_a_second(void **state)
{
    (void)state;
    put_body(5, 5, true);
    hear();
    assert_heard("Expect: 100-continue\r\n");
    assert_string_equal(heard + heard_n - 4, "\r\n\r\n");
    assert_false(h1_client_sent_body(client));
    say("HTTP/1.1 100 Continue\r\n\r\n");
    hear();
    assert_int_equal(heard_n, 5);
    say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_ended(ERR_OK, true);

    r.heads = r.ends = 0;
    released = released_reusable = 0;
    memset(&upload, 0, sizeof(upload));
    put_body(5, 5, true);
    hear();
    pump_ms(900);
    assert_false(h1_client_sent_body(client));
    pump_ms(200);
    hear();
    assert_int_equal(heard_n, 5);
    say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_ended(ERR_OK, true);

    r.heads = r.ends = 0;
    released = released_reusable = 0;
    memset(&upload, 0, sizeof(upload));
    put_body(5, 5, true);
    hear();
    say("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(r.status, 417);
    assert_ended(ERR_OK, false);
    assert_int_equal(upload.closed, 1);
    assert_false(h1_client_sent_body(client));
}

static void early_response_stops_the_upload(void **state)
{
    (void)state;
    put_body(PATTERN, PATTERN, false);
    pump();
    say("HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nhello");
    assert_int_equal(r.status, 403);
    assert_int_equal(r.got, 5);
    assert_int_equal(upload.closed, 1);
    assert_int_equal(upload.open, 0);
    assert_ended(ERR_OK, false);
}

static void answer_of_an_origin_that_closed_is_still_read(void **state)
{
    (void)state;
    upload.stop_at = 5;
    upload.stop_err = ERR_AGAIN;
    put_body(PATTERN, PATTERN, false);
    hear();
    /* It answers and closes; what we write next is answered by a reset. */
    send(origin, "HTTP/1.1 413 No\r\nContent-Length: 5\r\n\r\nhello", 43, MSG_NOSIGNAL);
    shutdown(origin, SHUT_RDWR);
    upload.stop_err = ERR_OK;
    body_notify(&upload.body);
    pump();
    assert_int_equal(r.status, 413);
    assert_int_equal(r.got, 5);
    assert_ended(ERR_OK, false);
}

static void broken_request_bodies_end_the_request(void **state)
{
    (void)state;
    upload.stop_at = 5;
    upload.stop_err = ERR_INCOMPLETE_BODY;
    put_body(10, 10, false);
    pump();
    assert_ended(ERR_INCOMPLETE_BODY, false);
    assert_int_equal(upload.closed, 1);
    h1_client_destroy(client);
    close(origin);
    connect_client();
    r.heads = r.ends = 0;
    released = 0;
    memset(&upload, 0, sizeof(upload));
    put_body(5, 10, false); /* ends before its length */
    pump();
    assert_ended(ERR_INCOMPLETE_BODY, false);
}

static void put_without_body_sends_length_zero(void **state)
{
    (void)state;
    req = (struct client_request){.method = STR_LIT("PUT"), .target = STR_LIT("/"), .method_id = METHOD_PUT,
                                  .authority = STR_LIT("o"), .send_zero_length = true};
    h1_client_send(client, &req, &events, &r);
    hear();
    assert_string_equal(heard, "PUT / HTTP/1.1\r\nHost: o\r\nContent-Length: 0\r\n\r\n");
    say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_ended(ERR_OK, true);
    r.heads = r.ends = 0;
    released = released_reusable = 0;
    put_body(0, 0, true); /* an empty one: nothing to wait for */
    hear();
    assert_heard("Content-Length: 0\r\n");
    say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_ended(ERR_OK, true);
}

static void timeouts_are_kept(void **state)
{
    (void)state;
    timeouts.first_byte_ms = 40;
    timeouts.stall_ms = 80;
    for (int round = 0; round < 4; round++) {
        h1_client_destroy(client);
        close(origin);
        connect_client();
        r.heads = r.ends = 0;
        r.got = 0;
        released = released_reusable = 0;
        memset(&upload, 0, sizeof(upload));
        switch (round) {
        case 0:
            get();
            pump_ms(100);
            assert_ended(ERR_FIRST_BYTE_TIMEOUT, false);
            break;
        case 1:
            get();
            say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
            for (int i = 0; i < 4; i++) {
                pump_ms(50);
                say("x");
            }
            assert_int_equal(r.ends, 0);
            pump_ms(150);
            assert_int_equal(r.got, 4);
            assert_ended(ERR_STALL_TIMEOUT, false);
            break;
        case 2: /* the origin does not read */
            put_body(PATTERN, PATTERN, false);
            pump_ms(200);
            assert_ended(ERR_STALL_TIMEOUT, false);
            assert_int_equal(upload.closed, 1);
            break;
        default: /* our own producer is slow: nobody's timeout */
            upload.stop_at = 5;
            upload.stop_err = ERR_AGAIN;
            put_body(10, 10, false);
            pump_ms(200);
            assert_int_equal(r.ends, 0);
            upload.stop_err = ERR_OK;
            body_notify(&upload.body);
            pump_ms(100);
            assert_ended(ERR_FIRST_BYTE_TIMEOUT, false);
        }
    }
}

static void cancel_from_outside(void **state)
{
    (void)state;
    get();
    say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    h1_client_cancel(client);
    h1_client_cancel(client);
    assert_int_equal(released, 0); /* not from inside */
    pump();
    assert_int_equal(released, 1);
    assert_int_equal(released_reusable, 0);
    assert_int_equal(r.ends, 0);
    h1_client_cancel(client); /* nothing runs: nothing happens */
    pump();
    assert_int_equal(released, 1);
    /* before anything was sent, and with a body: everything is let go at once */
    h1_client_destroy(client);
    close(origin);
    connect_client();
    put_body(10, 10, false);
    h1_client_cancel(client);
    assert_int_equal(upload.closed, 1);
    pump();
    assert_int_equal(released, 2);
    hear();
    assert_int_equal(heard_n, 0);
}

static void cancel_inside_callbacks(void **state)
{
    (void)state;
    static const char *const text[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello",
    };
    for (unsigned destroy = 0; destroy < 2; destroy++) {
        for (size_t i = 0; i < ARRAY_LEN(text); i++) {
            for (enum cancel_in where = CANCEL_IN_HEAD; where <= CANCEL_IN_END; where++) {
                if (client) h1_client_destroy(client);
                close(origin);
                connect_client();
                r.cancel = CANCEL_NEVER;
                r.offered = 0;
                next_request();
                r.cancel = where;
                r.destroy = destroy;
                say(text[i]);
                if (where == CANCEL_IN_END && i == 2) {
                    shutdown(origin, SHUT_WR);
                    pump();
                }
                assert_int_equal(r.heads, 1);
                assert_int_equal(r.ends, where == CANCEL_IN_END);
                assert_int_equal(released, !destroy);
                /* whole: the body with a length, once its last byte was received */
                bool reusable = !destroy && ((i == 0 && where >= CANCEL_IN_FILLED) || (i == 1 && where == CANCEL_IN_END));
                assert_int_equal(released_reusable, reusable);
                assert_int_equal(client == NULL, destroy);
            }
        }
    }
}

static void owner_may_destroy_in_released(void **state)
{
    (void)state;
    destroy_on_release = true;
    get();
    say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_int_equal(released, 1);
    assert_null(client);
    close(origin);
    connect_client();
    next_request();
    origin_reset();
    assert_int_equal(released, 1);
    assert_null(client);
}

static void destroyed_while_busy_lets_everything_go(void **state)
{
    (void)state;
    put_body(PATTERN, PATTERN, false);
    pump();
    h1_client_destroy(client);
    client = NULL;
    assert_int_equal(upload.closed, 1);
    assert_int_equal(upload.open, 0);
    assert_int_equal(r.ends, 0);
    assert_int_equal(released, 0);
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(get_goes_out_and_the_response_comes_in),
        T(byte_at_a_time_response_is_whole),
        T(big_body_is_read_into_the_receivers_space),
        T(big_chunked_body_is_read),
        T(no_space_pauses_until_resume),
        T(body_until_close_ends_with_fin),
        T(body_until_close_that_is_reset_is_broken),
        T(short_bodies_are_truncated),
        T(bad_responses_are_protocol_errors),
        T(closed_before_a_response_is_told),
        T(responses_without_body),
        T(not_reusable_when_the_origin_says_or_shows_it),
        T(idle_close_and_unasked_bytes_are_noticed),
        T(upload_with_length_and_chunked),
        T(upload_is_held_back_by_a_slow_origin),
        T(expect_waits_for_100_or_a_second),
        T(early_response_stops_the_upload),
        T(answer_of_an_origin_that_closed_is_still_read),
        T(broken_request_bodies_end_the_request),
        T(put_without_body_sends_length_zero),
        T(timeouts_are_kept),
        T(cancel_from_outside),
        T(cancel_inside_callbacks),
        T(owner_may_destroy_in_released),
        T(destroyed_while_busy_lets_everything_go),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(pattern);
    free(r.body);
    return failed;
}
