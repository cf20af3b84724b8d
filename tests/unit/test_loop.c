/* test_loop.c - turns, watches, timers, tasks, and the mailbox across threads. Includes loop.c to turn its wheel by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "io/loop.c"
#include "io/mailbox.h"

static struct loop *loop;
static char order[64]; /* what happened, one letter each */
static size_t order_n;

static void note(char c)
{
    if (order_n + 1 < sizeof order) order[order_n++] = c;
    order[order_n] = '\0';
}

static int setup(void **state)
{
    (void)state;
    order_n = 0;
    order[0] = '\0';
    return loop_create(&loop) == ERR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_destroy(loop);
    return 0;
}

static void on_stop_timer(struct timer *t)
{
    loop_stop(t->loop);
}

static void run_for(uint64_t ms)
{
    struct timer end;
    timer_init(&end, loop, on_stop_timer);
    timer_set(&end, ms);
    loop_run(loop);
}

/* ---- timers */

struct probe {
    struct timer timer;
    uint64_t set_ns, delay_ms, fired_ns;
};

static void on_probe(struct timer *t)
{
    struct probe *p = container_of(t, struct probe, timer);
    p->fired_ns = clock_ns();
}

static void timers_never_fire_early_and_not_much_late(void **state)
{
    (void)state;
    enum { N = 300 };
    static struct probe probes[N];
    for (unsigned i = 0; i < N; i++) {
        struct probe *p = &probes[i];
        timer_init(&p->timer, loop, on_probe);
        p->delay_ms = i < 30 ? i : random_u64() % 400;
        p->fired_ns = 0;
        p->set_ns = clock_ns();
        timer_set(&p->timer, p->delay_ms);
        assert_true(p->timer.due_ms != 0);
    }
    run_for(450);
    for (unsigned i = 0; i < N; i++) {
        struct probe *p = &probes[i];
        assert_true(p->fired_ns != 0);
        assert_int_equal(p->timer.due_ms, 0);
        uint64_t took_ns = p->fired_ns - p->set_ns;
        assert_true(took_ns >= p->delay_ms * 1000000);
        assert_true(took_ns < (p->delay_ms + 250) * 1000000); /* a busy machine */
    }
}

static void moved_timers_fire_once_at_their_last_time(void **state)
{
    (void)state;
    struct probe later, sooner, stopped;
    timer_init(&later.timer, loop, on_probe);
    timer_init(&sooner.timer, loop, on_probe);
    timer_init(&stopped.timer, loop, on_probe);
    later.fired_ns = sooner.fired_ns = stopped.fired_ns = 0;
    uint64_t start = clock_ns();
    timer_set(&later.timer, 20);
    timer_set(&later.timer, 150);
    timer_set(&sooner.timer, 5000);
    timer_set(&sooner.timer, 40);
    timer_set(&stopped.timer, 30);
    timer_stop(&stopped.timer);
    timer_stop(&stopped.timer);
    run_for(300);
    assert_true(later.fired_ns - start >= 150000000);
    assert_true(sooner.fired_ns - start >= 40000000);
    assert_true(sooner.fired_ns < later.fired_ns);
    assert_true(stopped.fired_ns == 0);
}

static struct probe far_probe, victim, pushed;

/* From within a callback: stop one that is due too, push another back, set itself again. */
static void on_meddle(struct timer *t)
{
    static unsigned times;
    note('m');
    timer_stop(&victim.timer);
    timer_set(&pushed.timer, 60);
    if (times++ == 0) timer_set(t, 0);
}

static void timers_may_change_others_that_are_due(void **state)
{
    (void)state;
    struct timer meddler;
    timer_init(&meddler, loop, on_meddle);
    timer_init(&victim.timer, loop, on_probe);
    timer_init(&pushed.timer, loop, on_probe);
    victim.fired_ns = pushed.fired_ns = 0;
    uint64_t start = clock_ns();
    timer_set(&meddler, 10);
    timer_set(&victim.timer, 10);
    timer_set(&pushed.timer, 10);
    run_for(200);
    assert_string_equal(order, "mm");
    assert_true(victim.fired_ns == 0);
    assert_true(pushed.fired_ns - start >= 70000000);
}

static void far_timers_outlive_a_revolution(void **state)
{
    (void)state;
    /* 9 s is beyond one revolution of the wheel: it shares its slot with a near one that comes round first. */
    timer_init(&far_probe.timer, loop, on_probe);
    far_probe.fired_ns = 0;
    timer_set(&far_probe.timer, 9000);
    timer_set(&far_probe.timer, UINT64_MAX);
    timer_set(&far_probe.timer, 8192 + 40);
    run_for(100);
    assert_true(far_probe.fired_ns == 0);
    timer_stop(&far_probe.timer);
}

static void on_probe_nothing(struct timer *t)
{
    (void)t;
}

/* Hours of simulated time: `count` timers set, moved and stopped at random, the wheel advanced only when it says so. */
struct sim {
    struct timer timer;
    uint64_t due_ms; /* what we expect; 0: not set */
};
static struct sim sims[200];
static uint64_t sim_fired, sim_now_ms;

static void sim_set(struct sim *s)
{
    static const uint64_t spans[] = {10, 300, 9000, 40000, 400000};
    uint64_t delay = random_u64() % spans[random_u64() % ARRAY_LEN(spans)];
    timer_set(&s->timer, delay);
    s->due_ms = sim_now_ms + delay;
}

static void on_sim(struct timer *t)
{
    struct sim *s = container_of(t, struct sim, timer);
    assert_true(s->due_ms != 0);
    assert_true(sim_now_ms > s->due_ms);                    /* never early */
    assert_true(sim_now_ms <= s->due_ms + 1 + 2 * TICK_MS); /* never late: the clock below does not jump */
    s->due_ms = 0;
    sim_fired++;
    if (random_u64() % 2) sim_set(s);
    struct sim *other = &sims[random_u64() % ARRAY_LEN(sims)];
    if (random_u64() % 4 == 0) {
        timer_stop(&other->timer);
        other->due_ms = 0;
    }
}

static void the_wheel_over_simulated_hours(void **state)
{
    (void)state;
    sim_fired = 0;
    sim_now_ms = loop_now_ms(loop);
    loop->running = loop->now_known = true; /* the clock stands still now */
    for (size_t i = 0; i < ARRAY_LEN(sims); i++) timer_init(&sims[i].timer, loop, on_sim);
    for (unsigned step = 0; step < 1000000; step++) {
        if (random_u64() % 8 == 0) sim_set(&sims[random_u64() % ARRAY_LEN(sims)]);
        sim_now_ms += random_u64() % TICK_MS;
        loop->now_ms = sim_now_ms;
        wheel_advance(loop);
    }
    assert_true(sim_fired > 10000);
    uint64_t set = 0;
    for (size_t i = 0; i < ARRAY_LEN(sims); i++) set += sims[i].due_ms != 0;
    assert_int_equal(loop->timers, set);
    /* A jump of the clock (a suspended machine) fires what is left at once. */
    sim_now_ms += 1000000;
    loop->now_ms = sim_now_ms;
    for (size_t i = 0; i < ARRAY_LEN(sims); i++) sims[i].timer.fn = on_probe_nothing;
    wheel_advance(loop);
    assert_int_equal(loop->timers, 0);
    loop->running = loop->now_known = false;
}

static void an_idle_loop_with_timers_does_not_spin(void **state)
{
    (void)state;
    struct timespec before, after;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    run_for(300);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    int64_t used_us = (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
    assert_true(used_us < 50000);
}

/* ---- tasks */

static struct task task_a, task_b, task_c;

static void on_a(struct task *t)
{
    (void)t;
    note('a');
    task_schedule(&task_b);
    task_schedule(&task_b);
    task_cancel(&task_c);
    note('.');
}

static void on_b(struct task *t)
{
    note('b');
    loop_stop(t->loop);
}

static void on_c(struct task *t)
{
    (void)t;
    note('c');
}

static void tasks_never_nest_and_can_be_cancelled(void **state)
{
    (void)state;
    task_init(&task_a, loop, on_a);
    task_init(&task_b, loop, on_b);
    task_init(&task_c, loop, on_c);
    task_schedule(&task_a);
    task_schedule(&task_a);
    task_schedule(&task_c); /* in the same batch as the one that cancels it */
    loop_run(loop);
    assert_string_equal(order, "a.b");
}

static unsigned busy_runs;

static void on_busy(struct task *t)
{
    busy_runs++;
    task_schedule(t);
}

static void a_busy_task_does_not_starve_timers(void **state)
{
    (void)state;
    struct task busy;
    busy_runs = 0;
    task_init(&busy, loop, on_busy);
    task_schedule(&busy);
    run_for(30);
    task_cancel(&busy);
    assert_true(busy_runs > 10);
}

/* ---- clock */

static uint64_t first_seen_ns, second_seen_ns;

static void on_clock_second(struct task *t)
{
    second_seen_ns = loop_now_ns(t->loop);
    loop_stop(t->loop);
}

static void on_clock_first(struct task *t)
{
    first_seen_ns = loop_now_ns(t->loop);
    nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    task_schedule(&task_b);
}

static void the_clock_stands_within_a_turn_and_runs_outside(void **state)
{
    (void)state;
    uint64_t a = loop_now_ns(loop);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    assert_true(loop_now_ns(loop) >= a + 2000000);
    task_init(&task_a, loop, on_clock_first);
    task_init(&task_b, loop, on_clock_second);
    task_schedule(&task_a);
    loop_run(loop);
    assert_true(first_seen_ns == second_seen_ns);
    assert_true(loop_now_ns(loop) >= first_seen_ns + 3000000);
    assert_null(loop_current());
    assert_true(wallclock_ms() > UINT64_C(1600000000000));
    assert_true(loop_now_ms(loop) - loop_now_ns(loop) / 1000000 <= 1);
}

/* ---- watches */

static unsigned ready_seen, ready_calls;

static void on_ready(struct watch *w, unsigned ready)
{
    ready_calls++;
    ready_seen |= ready;
    assert_ptr_equal(loop_current(), w->loop);
    if (ready & READY_CLOSED) {
        watch_stop(w);
        loop_stop(w->loop);
    }
}

static void watches_are_edge_triggered(void **state)
{
    (void)state;
    int fds[2];
    struct watch w;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    watch_init(&w, loop, on_ready);
    ready_seen = ready_calls = 0;
    watch_stop(&w); /* never started: nothing */
    assert_int_equal(watch_start(&w, fds[0]), ERR_OK);
    assert_int_equal(write(fds[1], "x", 1), 1);
    run_for(40);
    assert_int_equal(ready_seen, READY_READ | READY_WRITE);
    assert_in_range(ready_calls, 1, 2); /* nobody read, nobody is told again */
    ready_seen = 0;
    close(fds[1]);
    loop_run(loop);
    assert_true(ready_seen & READY_CLOSED);
    close(fds[0]);
}

/* ---- mailbox */

struct letter {
    struct mail mail;
    unsigned poster, number;
};

#define POSTERS 4
#define LETTERS 5000

static struct mailbox *box;
static unsigned next_number[POSTERS], letters_seen;
static bool letters_in_order;

static void on_letter(struct mail *m)
{
    struct letter *letter = container_of(m, struct letter, mail);
    if (letter->number != next_number[letter->poster]++) letters_in_order = false;
    free(letter);
    if (++letters_seen == POSTERS * LETTERS) loop_stop(mailbox_loop(box));
}

static void *post_letters(void *arg)
{
    for (unsigned i = 0; i < LETTERS; i++) {
        struct letter *letter = malloc(sizeof *letter);
        *letter = (struct letter){.mail.fn = on_letter, .poster = *(unsigned *)arg, .number = i};
        mailbox_post_any_thread(box, &letter->mail);
        if (i % 500 == 0) nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    return NULL;
}

static void mails_of_many_threads_arrive_in_order(void **state)
{
    (void)state;
    pthread_t threads[POSTERS];
    unsigned ids[POSTERS];
    letters_seen = 0;
    letters_in_order = true;
    assert_int_equal(mailbox_create(loop, &box), ERR_OK);
    for (unsigned i = 0; i < POSTERS; i++) {
        ids[i] = i;
        next_number[i] = 0;
        assert_int_equal(pthread_create(&threads[i], NULL, post_letters, &ids[i]), 0);
    }
    loop_run(loop);
    /* The last poster may not even have returned from its post. */
    mailbox_destroy(box);
    for (unsigned i = 0; i < POSTERS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(letters_seen, POSTERS * LETTERS);
    assert_true(letters_in_order);
}

static struct mail self_mail;
static unsigned self_seen;

static void on_self(struct mail *m)
{
    if (++self_seen < 10)
        mailbox_post_any_thread(box, m);
    else
        loop_stop(loop);
}

static void on_post_self(struct task *t)
{
    (void)t;
    mailbox_post_any_thread(box, &self_mail);
    assert_int_equal(self_seen, 0); /* not called from within the post */
}

static void a_mail_may_be_posted_again_from_its_delivery(void **state)
{
    (void)state;
    assert_int_equal(mailbox_create(loop, &box), ERR_OK);
    self_mail.fn = on_self;
    self_seen = 0;
    task_init(&task_a, loop, on_post_self);
    task_schedule(&task_a);
    loop_run(loop);
    assert_int_equal(self_seen, 10);
    mailbox_destroy(box);
}

static void mails_left_at_shutdown_are_returned(void **state)
{
    (void)state;
    assert_int_equal(mailbox_create(loop, &box), ERR_OK);
    self_mail.fn = on_self;
    self_seen = 10;
    mailbox_post_any_thread(box, &self_mail);
    mailbox_destroy(box);
    assert_int_equal(self_seen, 11);
}

/* Two loops throw one mail to and fro: every post must wake the other side. */
struct player {
    struct loop *loop;
    struct mailbox *box;
    struct player *other;
};
static struct player players[2];
static struct mail ball;
static unsigned throws;

static void on_ball(struct mail *m)
{
    struct player *me = loop_current() == players[0].loop ? &players[0] : &players[1];
    if (++throws >= 2000) loop_stop(me->loop);
    if (throws <= 2000) mailbox_post_any_thread(me->other->box, m);
}

static void *play(void *arg)
{
    loop_run(((struct player *)arg)->loop);
    return NULL;
}

static void wake_ups_are_never_lost(void **state)
{
    (void)state;
    pthread_t threads[2];
    throws = 0;
    ball.fn = on_ball;
    for (int i = 0; i < 2; i++) {
        players[i].other = &players[1 - i];
        assert_int_equal(loop_create(&players[i].loop), ERR_OK);
        assert_int_equal(mailbox_create(players[i].loop, &players[i].box), ERR_OK);
    }
    mailbox_post_any_thread(players[0].box, &ball);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, play, &players[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    assert_int_equal(throws, 2001);
    for (int i = 0; i < 2; i++) {
        mailbox_destroy(players[i].box);
        loop_destroy(players[i].loop);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(timers_never_fire_early_and_not_much_late),
        T(moved_timers_fire_once_at_their_last_time),
        T(timers_may_change_others_that_are_due),
        T(far_timers_outlive_a_revolution),
        T(the_wheel_over_simulated_hours),
        T(an_idle_loop_with_timers_does_not_spin),
        T(tasks_never_nest_and_can_be_cancelled),
        T(a_busy_task_does_not_starve_timers),
        T(the_clock_stands_within_a_turn_and_runs_outside),
        T(watches_are_edge_triggered),
        T(mails_of_many_threads_arrive_in_order),
        T(a_mail_may_be_posted_again_from_its_delivery),
        T(mails_left_at_shutdown_are_returned),
        T(wake_ups_are_never_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
