/* test_cli_progress.c - what progress shows: every width, totals that are known and not, and what goes where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/progress.h"

#define MIB (UINT64_C(1) << 20)

static struct progress_view half(void)
{
    return (struct progress_view){.what = "downloading", .objects = 60, .total_objects = 120, .bytes = 512 * MIB,
                                  .total_bytes = 1024 * MIB, .final = true, .bytes_per_s = 64.0 * MIB, .objects_per_s = 7};
}

static void the_whole_line(void **state)
{
    (void)state;
    char buf[PROGRESS_LINE];
    struct progress_view v = half();

    assert_string_equal(progress_render(&v, 200, false, buf), "downloading  60/120  512.0 MiB/1.0 GiB   50%  64.0 MiB/s  8.0 s left");
    assert_string_equal(progress_render(&v, 120, true, buf),
                        "downloading  60/120  512.0 MiB/1.0 GiB  [===================>                    ]   50%  64.0 MiB/s  8.0 s left");
}

static void no_width_is_exceeded_and_what_matters_stays(void **state)
{
    (void)state;
    char buf[PROGRESS_LINE];
    struct progress_view v = half();

    for (unsigned bar = 0; bar < 2; bar++)
        for (unsigned columns = 0; columns < 300; columns++) {
            progress_render(&v, columns, bar, buf);
            assert_true(strlen(buf) <= columns);
            if (columns >= 20) assert_non_null(strstr(buf, "512.0 MiB/1.0 GiB"));
            if (columns >= 30) assert_non_null(strstr(buf, "50%"));
        }
    v.objects = v.total_objects = v.bytes = v.total_bytes = UINT64_MAX;
    v.bytes_per_s = 1e30;
    for (unsigned columns = 0; columns < 600; columns++) assert_true(strlen(progress_render(&v, columns, true, buf)) <= columns);
}

static void totals_that_still_grow_promise_nothing(void **state)
{
    (void)state;
    char buf[PROGRESS_LINE];
    struct progress_view v = half();

    v.final = false;
    assert_string_equal(progress_render(&v, 200, true, buf), "downloading  60/120+  512.0 MiB/1.0 GiB+  64.0 MiB/s");
    v = (struct progress_view){.what = "uploading", .bytes = 3 * MIB, .bytes_per_s = 1.5 * MIB};
    assert_string_equal(progress_render(&v, 200, true, buf), "uploading  3.0 MiB  1.5 MiB/s");
}

static void objects_without_bytes(void **state)
{
    (void)state;
    char buf[PROGRESS_LINE];
    struct progress_view v = {.what = "deleting", .objects = 500, .total_objects = 2000, .final = true, .objects_per_s = 100};

    assert_string_equal(progress_render(&v, 200, false, buf), "deleting  500/2000   25%  100/s  15.0 s left");
    v.objects_per_s = 0; /* stalled: no time can be told */
    assert_string_equal(progress_render(&v, 200, false, buf), "deleting  500/2000   25%  0/s");
    v.objects = 2001; /* more than were announced */
    assert_string_equal(progress_render(&v, 200, false, buf), "deleting  2001/2000  100%  0/s  0.0 s left");
}

/* ---- on a loop, into a pipe */

static void stop(struct timer *t) { loop_stop(t->loop); }

/* What a progress prints to standard error that runs for ms and then ends. */
static const char *printed(struct cli *cli, uint64_t ms, bool summary)
{
    static char text[65536];
    int saved = dup(STDERR_FILENO), out = -1;
    char name[] = "/tmp/s3p-progress-XXXXXX";
    struct timer t;

    assert_int_equal(loop_create(&cli->net.loop), ERR_OK);
    out = mkstemp(name);
    unlink(name);
    fflush(stderr);
    dup2(out, STDERR_FILENO);
    struct progress *p = progress_start(cli, "downloading");
    progress_total(p, 3, 3 * MIB, true);
    progress_add(p, 2, (int64_t)(2 * MIB));
    progress_add(p, 0, -(int64_t)MIB);
    progress_line(p, "a line\tof %s", "others");
    timer_init(&t, cli->net.loop, stop);
    timer_set(&t, ms);
    loop_run(cli->net.loop);
    progress_end(p, summary);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    ssize_t n = pread(out, text, sizeof text - 1, 0);
    close(out);
    text[n > 0 ? n : 0] = '\0';
    loop_destroy(cli->net.loop);
    return text;
}

static void a_bar_is_drawn_and_leaves_nothing(void **state)
{
    (void)state;
    struct cli cli = {.progress_mode = PROGRESS_BAR};
    const char *text = printed(&cli, 600, false);

    assert_non_null(strstr(text, "\r\033[Ka line?of others\n"));
    assert_non_null(strstr(text, "\r\033[Kdownloading  2/3  1.0 MiB/3.0 MiB  ["));
    assert_null(strstr(strstr(text, "others\n") + 7, "\n"));
    assert_string_equal(text + strlen(text) - 4, "\r\033[K"); /* the last thing is that it goes */
}

static void what_stays_is_a_summary(void **state)
{
    (void)state;
    struct cli cli = {.progress_mode = PROGRESS_PLAIN};
    const char *text = printed(&cli, 10, true);
    const char *line = strstr(text, "others\n") + 7;

    assert_int_equal(strncmp(line, "2 objects, 1.0 MiB in 0.", 24), 0);
    assert_string_equal(line + strlen(line) - 3, "/s\n");
}

static void quiet_and_none_show_nothing(void **state)
{
    (void)state;
    struct cli none = {.progress_mode = PROGRESS_NONE}, quiet = {.progress_mode = PROGRESS_BAR, .quiet = true}, pipe = {.quiet = false};

    assert_string_equal(printed(&none, 300, true), "a line?of others\n");
    assert_string_equal(printed(&quiet, 300, true), "a line?of others\n");
    assert_string_equal(printed(&pipe, 300, true), "a line?of others\n"); /* auto, where no terminal is */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_whole_line),
        cmocka_unit_test(no_width_is_exceeded_and_what_matters_stays),
        cmocka_unit_test(totals_that_still_grow_promise_nothing),
        cmocka_unit_test(objects_without_bytes),
        cmocka_unit_test(a_bar_is_drawn_and_leaves_nothing),
        cmocka_unit_test(what_stays_is_a_summary),
        cmocka_unit_test(quiet_and_none_show_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
