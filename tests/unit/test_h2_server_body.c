/* test_h2_server_body.c - HTTP/2 client connections: response and request bodies, priorities, windows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "h2_server_support.h"

static struct client cl;

/* ---- response bodies */

static void waiting_body_is_deferred_and_resumed(void **state)
{
    (void)state;
    client_open(&cl);
    int32_t id = client_get(&cl, "/slow/300000");
    client_turn(&cl);
    struct seen *s = seen_of(&cl, id);
    assert_true(s->head && s->frames == 0);
    unsigned pulls = current_source->pulls;
    client_turn(&cl);
    assert_int_equal(current_source->pulls, pulls); /* not asked again without a reason */
    current_source->stop_at = 100;
    body_notify(&current_source->body);
    client_turn(&cl);
    assert_int_equal(s->body_n, 100);
    body_notify(&current_source->body); /* only a hint */
    body_notify(&current_source->body);
    client_turn(&cl);
    assert_int_equal(s->body_n, 100);
    int32_t other = client_get(&cl, "/50000"); /* does not wait for it */
    struct source *slow = current_source;
    client_turn(&cl);
    assert_whole(&cl, other, 50000);
    slow->stop_err = ERR_OK;
    body_notify(&slow->body);
    client_turn(&cl);
    assert_whole(&cl, id, 300000);
    client_close(&cl);
}

static void broken_bodies_reset_only_their_stream(void **state)
{
    (void)state;
    client_open(&cl);
    static const enum err errors[] = {ERR_CHANGED, ERR_END, ERR_OK};
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        int32_t id = client_get(&cl, "/slow/300000");
        client_turn(&cl);
        current_source->stop_at = 1000;
        body_notify(&current_source->body);
        client_turn(&cl);
        current_source->stop_err = errors[i];
        if (errors[i] == ERR_OK) current_source->lie = true;
        body_notify(&current_source->body);
        client_turn(&cl);
        struct seen *s = seen_of(&cl, id);
        assert_true(s->closed);
        assert_int_equal(s->error, NGHTTP2_INTERNAL_ERROR);
        assert_int_equal(s->body_n, 1000);
        assert_int_equal(ends, i + 1);
        assert_int_equal(why[i], i == 0 ? ERR_CHANGED : i == 1 ? ERR_TRUNCATED : ERR_INTERNAL);
    }
    int32_t id = client_get(&cl, "/7");
    client_turn(&cl);
    assert_whole(&cl, id, 7);
    client_close(&cl);
}

static void handler_can_reset_before_and_after_respond(void **state)
{
    (void)state;
    client_open(&cl);
    on_begin = answer_reset;
    int32_t a = client_get(&cl, "/");
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, a)->error, NGHTTP2_INTERNAL_ERROR);
    assert_false(seen_of(&cl, a)->head);
    on_begin = answer_size;
    int32_t b = client_get(&cl, "/slow/1000");
    client_turn(&cl);
    exchange_reset(current);
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, b)->error, NGHTTP2_INTERNAL_ERROR);
    on_begin = answer_200_no_body;
    int32_t c = client_get(&cl, "/");
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, c)->error, NGHTTP2_INTERNAL_ERROR);
    assert_int_equal(ends, 3);
    assert_int_equal(why[0], ERR_CANCELLED);
    assert_int_equal(why[1], ERR_CANCELLED);
    assert_int_equal(why[2], ERR_INTERNAL);
    client_close(&cl);
}

static void large_frames_where_the_client_allows_them(void **state)
{
    (void)state;
    nghttp2_settings_entry iv[] = {{NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 1 << 20},
                                   {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 30}};
    client_open_with(&cl, client_fd(), iv, 2, true);
    nghttp2_session_set_local_window_size(cl.session, 0, 0, 1 << 30);
    client_turn(&cl);
    int32_t id = client_get(&cl, "/8000000");
    client_turn(&cl);
    assert_whole(&cl, id, 8000000);
    assert_int_equal(seen_of(&cl, id)->largest_frame, 256 * 1024);
    int32_t small = client_get(&cl, "/10");
    client_turn(&cl);
    assert_whole(&cl, small, 10);
    id = client_get(&cl, "/parts/1000000");
    client_turn(&cl);
    assert_whole(&cl, id, 1000000);
    client_close(&cl);
}

static void small_pieces_become_whole_frames(void **state)
{
    (void)state;
    client_open(&cl);
    int32_t id = client_get(&cl, "/parts/200000");
    client_turn(&cl);
    assert_whole(&cl, id, 200000);
    assert_true(seen_of(&cl, id)->largest_frame >= 8 * 1000);
    client_close(&cl);
}

static void sixty_four_slow_streams_do_not_hold_back_a_fast_one(void **state)
{
    (void)state;
    client_open(&cl);
    int32_t slow[64];
    for (unsigned i = 0; i < 64; i++) slow[i] = client_get(&cl, "/slow/100000");
    client_turn(&cl);
    int32_t fast = client_get(&cl, "/4000000");
    client_turn(&cl);
    assert_whole(&cl, fast, 4000000);
    assert_int_equal(seen_of(&cl, slow[63])->frames, 0);
    client_close(&cl);
    assert_int_equal(ends, 65);
}

static void streams_share_the_connection(void **state)
{
    (void)state;
    nghttp2_settings_entry iv[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 30}};
    client_open_with(&cl, client_fd(), iv, 1, true);
    nghttp2_session_set_local_window_size(cl.session, 0, 0, 1 << 30);
    client_turn(&cl);
    int32_t a = client_get(&cl, "/2000000"), b = client_get(&cl, "/2000000"), c = client_get(&cl, "/2000000");
    client_turn(&cl);
    assert_whole(&cl, a, 2000000);
    assert_whole(&cl, b, 2000000);
    assert_whole(&cl, c, 2000000);
    unsigned n[2] = {0, 0};
    for (unsigned i = 0; i < cl.data_frames / 2; i++) {
        n[0] += cl.data_order[i] == a;
        n[1] += cl.data_order[i] == c;
    }
    assert_true(n[0] > n[1] * 8 / 10 && n[1] > n[0] * 8 / 10);
    client_close(&cl);
}

static void stated_priorities_are_followed(void **state)
{
    (void)state;
    client_open(&cl);
    int32_t low = client_request(&cl, "GET", "/1000000", "priority", "u=6", NULL);
    int32_t high = client_request(&cl, "GET", "/1000000", "priority", "u=1", NULL);
    client_turn(&cl);
    assert_whole(&cl, low, 1000000);
    assert_whole(&cl, high, 1000000);
    assert_true(seen_of(&cl, high)->closed_at < seen_of(&cl, low)->closed_at);
    /* a later PRIORITY_UPDATE counts as well */
    int32_t a = client_request(&cl, "GET", "/1000000", "priority", "u=3", NULL);
    int32_t b = client_request(&cl, "GET", "/1000000", "priority", "u=4", NULL);
    static const char text[] = "\0\0\0\0u=0";
    uint8_t update[7];
    memcpy(update, text, 7);
    update[3] = (uint8_t)b;
    client_send(&cl);
    frame_say(cl.fd, 7, 0x10, 0, 0, update);
    client_turn(&cl);
    assert_true(seen_of(&cl, b)->closed_at < seen_of(&cl, a)->closed_at);
    client_close(&cl);
}

static void client_that_does_not_read_makes_us_hold_little(void **state)
{
    (void)state;
    nghttp2_settings_entry iv[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 30}};
    client_open_with(&cl, client_fd(), iv, 1, true);
    nghttp2_session_set_local_window_size(cl.session, 0, 0, 1 << 30);
    client_turn(&cl);
    cl.stop_reading = true;
    int32_t ids[100];
    for (unsigned i = 0; i < 100; i++) ids[i] = client_get(&cl, "/8000000");
    client_turn(&cl);
    /* the out queue, and a frame or a share of HELD_BYTES for every stream */
    assert_true(max_open_bytes <= (size_t)H2_OUT_BATCH_MAX + (1 << 20) + 100 * 16384);
    assert_true(open_bytes > 0);
    for (unsigned i = 0; i < 50; i++) nghttp2_submit_rst_stream(cl.session, 0, ids[i], NGHTTP2_CANCEL);
    client_turn(&cl);
    cl.stop_reading = false;
    client_turn(&cl);
    for (unsigned i = 50; i < 100; i++) assert_whole(&cl, ids[i], 8000000);
    assert_int_equal(ends, 100);
    assert_int_equal(stat_get(&h2_server_stats(server)->resets_received), 50);
    client_close(&cl);
}

static void client_reset_ends_the_exchange(void **state)
{
    (void)state;
    client_open(&cl);
    int32_t id = client_get(&cl, "/slow/100");
    client_turn(&cl);
    struct source *s = current_source;
    nghttp2_submit_rst_stream(cl.session, 0, id, NGHTTP2_CANCEL);
    client_turn(&cl);
    assert_int_equal(ends, 1);
    assert_int_equal(why[0], ERR_RESET);
    (void)s;
    on_begin = answer_later;
    id = client_get(&cl, "/5");
    client_turn(&cl);
    nghttp2_submit_rst_stream(cl.session, 0, id, NGHTTP2_CANCEL);
    client_turn(&cl);
    assert_int_equal(ends, 2);
    client_close(&cl);
}

/* ---- request bodies */

static char upload[4 << 20];

static void request_body_arrives_whole(void **state)
{
    (void)state;
    on_begin = collect_body;
    for (size_t i = 0; i < sizeof(upload); i++) upload[i] = (char)(i * 7 + i / 251);
    client_open(&cl);
    cl.upload = upload;
    cl.upload_n = 700000;
    int32_t id = client_request(&cl, "PUT", "/x", "content-length", "700000", NULL);
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, id)->status, 200);
    assert_int_equal(got_body_n, 700000);
    assert_memory_equal(got_body, upload, 700000);
    assert_int_equal(got_body_err, ERR_END);
    assert_int_equal(last_received_bytes, 700000);
    assert_int_equal(why[0], ERR_OK);
    got_body_n = 0;
    cl.upload_at = 0;
    id = client_request(&cl, "PUT", "/x", NULL); /* of unknown length */
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, id)->status, 200);
    assert_int_equal(got_body_n, 700000);
    client_close(&cl);
}

static void windows_are_given_back(void **state)
{
    (void)state;
    on_begin = collect_body;
    client_open(&cl);
    for (unsigned i = 0; i < 12; i++) { /* three times the connection's window */
        cl.upload = upload;
        cl.upload_n = sizeof(upload);
        cl.upload_at = got_body_n = 0;
        int32_t id = client_request(&cl, "PUT", "/x", NULL);
        client_turn(&cl);
        assert_int_equal(seen_of(&cl, id)->status, 200);
    }
    client_close(&cl);
}

/* Answers at once and takes nothing of what is sent. */
static void answer_and_ignore(struct exchange *x)
{
    answer(x, 200, 0, NULL);
}
static void body_that_nobody_wants_is_dropped(void **state)
{
    (void)state;
    on_begin = answer_and_ignore;
    client_open(&cl);
    for (unsigned i = 0; i < 30; i++) {
        cl.upload = upload;
        cl.upload_n = 1500000;
        cl.upload_at = 0;
        int32_t id = client_request(&cl, "PUT", "/x", NULL);
        client_turn(&cl);
        assert_int_equal(seen_of(&cl, id)->status, 200);
        assert_int_equal(seen_of(&cl, id)->error, NGHTTP2_NO_ERROR);
        assert_true(seen_of(&cl, id)->closed);
    }
    assert_int_equal(ends, 30);
    assert_int_equal(why[29], ERR_OK);
    client_close(&cl);
}

static struct chunk held[1024];
static unsigned held_n;
static void hold_body(void *arg)
{
    struct exchange *x = arg;
    unsigned n;
    while (held_n < ARRAY_LEN(held) - 16) {
        if (body_pull(&x->req_body, held + held_n, 16, 1 << 20, &n) != ERR_OK) return;
        held_n += n;
    }
}
static void hold_the_body(struct exchange *x)
{
    x->req_body.notify = hold_body;
    x->req_body.notify_arg = x;
    hold_body(x);
}
static void upload_waits_for_its_consumer(void **state)
{
    (void)state;
    on_begin = hold_the_body;
    held_n = 0;
    client_open(&cl);
    cl.upload = upload;
    cl.upload_n = sizeof(upload);
    int32_t id = client_request(&cl, "PUT", "/x", NULL);
    client_turn(&cl);
    assert_int_equal(cl.upload_at, conf.stream_window_bytes); /* and no more */
    for (unsigned i = 0; i < held_n; i++) chunk_release(&held[i], CHUNK_COPIED);
    held_n = 0;
    client_turn(&cl);
    assert_true(cl.upload_at > conf.stream_window_bytes);
    /* chunks may outlive their exchange and their connection */
    nghttp2_submit_rst_stream(cl.session, 0, id, NGHTTP2_CANCEL);
    client_turn(&cl);
    assert_int_equal(ends, 1);
    client_close(&cl);
    for (unsigned i = 0; i < held_n; i++) chunk_release(&held[i], CHUNK_COPIED);
    held_n = 0;
}

static void no_pull(struct exchange *x)
{
    x->req_body.notify = hold_body;
    x->req_body.notify_arg = x;
}
static void unread_bodies_hold_no_more_than_the_connection_window(void **state)
{
    (void)state;
    on_begin = no_pull;
    conf.connection_window_bytes = 3 << 20;
    client_open(&cl);
    cl.upload = upload;
    cl.upload_n = sizeof(upload);
    size_t sent = 0;
    for (unsigned i = 0; i < 4; i++) {
        cl.upload_at = 0;
        client_request(&cl, "PUT", "/x", NULL);
        client_turn(&cl);
        sent += cl.upload_at;
    }
    assert_int_equal(sent, 3 << 20);
    client_close(&cl);
    assert_int_equal(ends, 4);
}

static void one_byte_bodies_hold_little(void **state)
{
    (void)state;
    on_begin = no_pull;
    client_open(&cl);
    cl.upload = upload;
    cl.upload_n = 1;
    for (unsigned i = 0; i < 100; i++) {
        cl.upload_at = 0;
        client_request(&cl, "PUT", "/x", NULL);
    }
    client_turn(&cl);
    LIST_EACH_SAFE(n, tmp, &only_conn()->streams) {
        struct h2_stream *s = container_of(n, struct h2_stream, link);
        assert_true(!s->in.from || s->in.from->cap <= 4096);
    }
    client_close(&cl);
}

static void continue_is_sent_when_it_helps(void **state)
{
    (void)state;
    on_begin = collect_body;
    client_open(&cl);
    cl.upload = upload;
    cl.upload_n = 1000;
    cl.upload_hold = true;
    int32_t id = client_request(&cl, "PUT", "/x", "expect", "100-continue", "content-length", "1000", NULL);
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, id)->informs, 1);
    cl.upload_hold = false;
    nghttp2_session_resume_data(cl.session, id);
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, id)->status, 200);
    assert_int_equal(got_body_n, 1000);
    cl.upload_at = 0;
    id = client_request(&cl, "PUT", "/x", "expect", "100-continue", "content-length", "1000", NULL);
    on_begin = answer_and_ignore; /* never asked for */
    cl.upload_hold = true;
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, id)->informs, 0);
    client_close(&cl);
}

/* Answered before the body's end: little that is left may still come, and then there is no reset. */
static void rest_of_a_small_body_is_waited_for(void **state)
{
    (void)state;
    on_begin = answer_and_ignore;
    conf.body_timeout_ms = 100;
    int fd = raw_open();
    frame_say(fd, sizeof(post_block), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, post_block);
    frame_say(fd, 1000, NGHTTP2_DATA, 0, 1, NULL);
    hear(fd);
    assert_true(heard_frame(NGHTTP2_HEADERS, 1, 0, NULL) > 0);
    assert_int_equal(ends, 0);
    frame_say(fd, 1000, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, NULL);
    hear(fd);
    assert_int_equal(ends, 1);
    assert_int_equal(why[0], ERR_OK);
    /* does not come in time */
    frame_say(fd, sizeof(post_block), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 3, post_block);
    hear(fd);
    assert_int_equal(ends, 1);
    pump_ms(200);
    hear(fd);
    assert_int_equal(ends, 2);
    assert_int_equal(why[1], ERR_OK);
    /* is not little */
    frame_say(fd, sizeof(post_block), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 5, post_block);
    hear(fd);
    for (unsigned i = 0; i < 5; i++) frame_say(fd, 16384, NGHTTP2_DATA, 0, 5, NULL);
    hear(fd);
    assert_int_equal(ends, 3);
    assert_int_equal(heard_frame(NGHTTP2_RST_STREAM, 1, 0, NULL), 0);
    for (uint32_t id = 3; id <= 5; id += 2) {
        size_t rst = heard_frame(NGHTTP2_RST_STREAM, id, 0, NULL);
        assert_true(rst > 0);
        assert_int_equal(heard_u32(rst), NGHTTP2_NO_ERROR);
        assert_true(rst > heard_frame(NGHTTP2_HEADERS, id, 0, NULL));
    }
    assert_int_equal(stat_get(&h2_server_stats(server)->timeouts), 0);
    /* announced as more than that: at once */
    static const uint8_t large_block[] = {0x83, 0x86, 0x04, 2, '/', '4', 0x01, 1, 'h', 0x0f, 0x0d, 6, '1', '0', '0', '0',
                                          '0', '0'};
    frame_say(fd, sizeof(large_block), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 7, large_block);
    hear(fd);
    assert_int_equal(ends, 4);
    assert_true(heard_frame(NGHTTP2_RST_STREAM, 7, 0, NULL) > 0);
    assert_int_equal(heard_goaway(), UINT32_MAX);
    close(fd);
}

static void too_much_body_is_413(void **state)
{
    (void)state;
    on_begin = collect_body;
    conf.max_body_bytes = 100000;
    client_open(&cl);
    cl.upload = upload;
    cl.upload_n = 300000;
    int32_t id = client_request(&cl, "PUT", "/x", NULL);
    client_turn(&cl);
    assert_int_equal(got_body_err, ERR_BODY_TOO_LARGE);
    assert_int_equal(seen_of(&cl, id)->status, 413);
    cl.upload_at = 0;
    id = client_request(&cl, "PUT", "/x", "content-length", "300000", NULL);
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, id)->status, 413);
    assert_int_equal(begins, 1);
    client_close(&cl);
}

static void body_unlike_its_length_resets_the_stream(void **state)
{
    (void)state;
    on_begin = collect_body;
    client_open(&cl);
    cl.upload = upload;
    cl.upload_n = 1000;
    int32_t id = client_request(&cl, "PUT", "/x", "content-length", "999", NULL);
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, id)->error, NGHTTP2_PROTOCOL_ERROR);
    cl.upload_at = 0;
    id = client_request(&cl, "PUT", "/x", "content-length", "1001", NULL);
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, id)->error, NGHTTP2_PROTOCOL_ERROR);
    assert_int_equal(begins, 2);
    assert_int_equal(ends, 2);
    assert_int_equal(why[0], ERR_RESET);
    client_close(&cl);
}

static void slow_body_is_408(void **state)
{
    (void)state;
    on_begin = collect_body;
    conf.body_timeout_ms = 50;
    client_open(&cl);
    cl.upload = upload;
    cl.upload_n = 1000;
    cl.upload_hold = true;
    int32_t id = client_request(&cl, "PUT", "/x", NULL);
    client_turn(&cl);
    pump_ms(120);
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, id)->status, 408);
    assert_int_equal(stat_get(&h2_server_stats(server)->timeouts), 1);
    client_close(&cl);
}

static void trailers_end_the_body(void **state)
{
    (void)state;
    on_begin = collect_body;
    int fd = raw_open();
    static const uint8_t trailer[] = {0, 1, 'x', 1, 'y'};
    frame_say(fd, sizeof(post_block), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, post_block);
    frame_say(fd, 5, NGHTTP2_DATA, 0, 1, "12345");
    frame_say(fd, sizeof(trailer), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 1, trailer);
    hear(fd);
    assert_int_equal(got_body_err, ERR_END);
    assert_int_equal(got_body_n, 5);
    assert_true(heard_frame(NGHTTP2_HEADERS, 1, 0, NULL) > 0);
    close(fd);
}

static void window_grows_where_it_is_what_limits(void **state)
{
    (void)state;
    on_begin = collect_body;
    conf.stream_window_bytes = 1 << 16;
    conf.stream_window_max_bytes = 200000;
    int fd = raw_open();
    frame_say(fd, sizeof(post_block), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, post_block);
    static const uint32_t windows[] = {131072, 200000};
    for (unsigned round = 0; round < 4; round++) {
        heard_n = 0;
        for (unsigned i = 0; i < 8 && !heard_frame(NGHTTP2_PING, 0, 0, NULL); i++) {
            frame_say(fd, 16384, NGHTTP2_DATA, 0, 1, upload);
            hear(fd);
        }
        size_t ping = heard_frame(NGHTTP2_PING, 0, 0, NULL);
        if (round == 3) { /* as large as it may be: not measured any more */
            assert_int_equal(ping, 0);
            break;
        }
        assert_true(ping > 0);
        uint8_t opaque[8];
        memcpy(opaque, heard + ping, 8);
        for (unsigned i = 0; i < 3 * round; i++) {
            frame_say(fd, 16384, NGHTTP2_DATA, 0, 1, upload);
            hear(fd); /* the consumer keeps up */
        }
        heard_n = 0;
        frame_say(fd, 8, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, opaque);
        hear(fd);
        size_t settings = heard_frame(NGHTTP2_SETTINGS, 0, 0, NULL);
        if (round) assert_int_equal(heard_u32(settings + 2), windows[round - 1]);
        else assert_int_equal(settings, 0); /* little came in that round trip */
        if (round) frame_say(fd, 0, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, NULL);
    }
    close(fd);
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(waiting_body_is_deferred_and_resumed),
        T(broken_bodies_reset_only_their_stream),
        T(handler_can_reset_before_and_after_respond),
        T(large_frames_where_the_client_allows_them),
        T(small_pieces_become_whole_frames),
        T(sixty_four_slow_streams_do_not_hold_back_a_fast_one),
        T(streams_share_the_connection),
        T(stated_priorities_are_followed),
        T(client_that_does_not_read_makes_us_hold_little),
        T(client_reset_ends_the_exchange),
        T(request_body_arrives_whole),
        T(windows_are_given_back),
        T(body_that_nobody_wants_is_dropped),
        T(upload_waits_for_its_consumer),
        T(unread_bodies_hold_no_more_than_the_connection_window),
        T(one_byte_bodies_hold_little),
        T(continue_is_sent_when_it_helps),
        T(rest_of_a_small_body_is_waited_for),
        T(too_much_body_is_413),
        T(body_unlike_its_length_resets_the_stream),
        T(slow_body_is_408),
        T(trailers_end_the_body),
        T(window_grows_where_it_is_what_limits),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(pattern);
    return failed;
}
