/* stats_watch.c - see the header.
 *
 * A terminal gets its other screen, no cursor, and keys without echo and without a line end; all of that is taken back by
 * screen_close, which runs at the end, at the first SIGINT or SIGTERM (before anything else, so that a second one finds
 * the terminal as it was) and around a stop by Ctrl-Z.
 *
 * A proxy that does not answer is no reason to leave a screen: it says so there and goes on asking. */
#include "cli/stats_watch.h"

#include <jansson.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "cli/admin.h"
#include "cli/stats_view.h"

#define SCREEN_OPEN "\033[?1049h\033[?25l"
#define SCREEN_CLOSE "\033[?25h\033[?1049l"

struct stats_watch {
    struct cli *cli;
    const struct watch_options *o;
    bool screen;              /* standard output is a terminal that can place a cursor */
    bool screen_is_open, keys_changed;
    struct termios keys;      /* as they were */
    unsigned rows, columns;
    bool utf8;
    struct event *on_key, *on_resize, *on_stop;
    struct timer due;
    bool waiting;             /* for the timer or a key, not for an answer */
    bool quit;
    json_t *now, *before;
    uint64_t answered_ns;
    char why[1024];           /* the last question failed; "": it did not */
    struct stats_history history;
    struct strbuf text;
};

/* ---- the terminal */

static void say(const char *sequence)
{
    fputs(sequence, stdout);
    fflush(stdout);
}

/* Keys come one by one, and are not shown. */
static void keys_open(struct stats_watch *w)
{
    struct termios t;

    if (!w->screen || w->keys_changed || !isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &w->keys) != 0) return;
    t = w->keys;
    t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    w->keys_changed = tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
}

static void screen_open(struct stats_watch *w)
{
    if (!w->screen || w->screen_is_open) return;
    w->screen_is_open = true;
    say(SCREEN_OPEN);
}

static void screen_close(struct stats_watch *w)
{
    if (w->keys_changed) tcsetattr(STDIN_FILENO, TCSANOW, &w->keys);
    w->keys_changed = false;
    if (w->screen_is_open) say(SCREEN_CLOSE);
    w->screen_is_open = false;
}

static void ask_size(struct stats_watch *w)
{
    struct winsize s;

    w->rows = 24;
    w->columns = w->screen ? 80 : 1000;
    if (w->screen && ioctl(STDOUT_FILENO, TIOCGWINSZ, &s) == 0 && s.ws_row >= 2 && s.ws_col >= 2) {
        w->rows = s.ws_row;
        w->columns = s.ws_col;
    }
}

static unsigned lines_of(struct str text)
{
    unsigned n = 0;
    for (size_t i = 0; i < text.n; i++) n += text.p[i] == '\n';
    return n;
}

/* Each line over what stood there, the rest cleared: nothing flickers. What is too high loses its empty lines first. */
static void draw_screen(struct stats_watch *w)
{
    struct str rest = strbuf_get(&w->text), row;
    bool tight = lines_of(rest) > w->rows;
    unsigned n = 0;

    fputs("\033[H", stdout);
    while (n < w->rows && str_split(&rest, '\n', &row)) {
        if ((row.n == 0 && tight) || !rest.p) continue;
        printf("%s" STR_FMT "\033[K", n ? "\r\n" : "", STR_ARG(row));
        n++;
    }
    fputs(n < w->rows ? "\r\n\033[J" : "", stdout);
}

/* ---- what is shown */

static void render(struct stats_watch *w, const char *trouble)
{
    struct stats_view v = {.now = w->now, .before = w->before, .url = w->cli->net.url, .history = w->screen ? &w->history : NULL,
                           .trouble = trouble, .columns = w->columns, .utf8 = w->utf8, .bold = w->screen};
    stats_render(&v, &w->text);
}

/* False: nobody reads it any more. */
static bool show(struct stats_watch *w)
{
    char trouble[1200] = "", ago[32];

    w->text.n = 0;
    if (w->why[0])
        snprintf(trouble, sizeof trouble, "%s; these are %s old", w->why,
                 human_duration((double)(clock_ns() - w->answered_ns) / 1e9, ago, sizeof ago));
    if (w->cli->json) {
        if (!w->why[0]) json_dumpf(w->now, stdout, JSON_COMPACT), putchar('\n');
    } else {
        render(w, trouble[0] ? trouble : NULL);
        if (w->screen) draw_screen(w);
        else if (!trouble[0]) printf(STR_FMT "\n", STR_ARG(strbuf_get(&w->text)));
    }
    return fflush(stdout) == 0 && !ferror(stdout);
}

/* ---- events */

static void wake(struct stats_watch *w)
{
    if (w->waiting) net_stop(&w->cli->net);
}

static void key_pressed(evutil_socket_t fd, short what, void *arg)
{
    struct stats_watch *w = arg;
    char keys[64];
    ssize_t n = read((int)fd, keys, sizeof keys);

    (void)what;
    if (n <= 0) event_del(w->on_key);
    for (ssize_t i = 0; i < n; i++)
        if (keys[i] == 'q' || keys[i] == 'Q') w->quit = true;
    if (!w->quit) return;
    /* an answer may be long in coming: nothing waits for it */
    screen_close(w);
    if (w->waiting) wake(w);
    else raise(SIGINT);
}

static void resized(evutil_socket_t sig, short what, void *arg)
{
    struct stats_watch *w = arg;

    (void)sig;
    (void)what;
    ask_size(w);
    if (w->now && w->screen_is_open) show(w);
}

static void stopped(evutil_socket_t sig, short what, void *arg)
{
    struct stats_watch *w = arg;

    (void)sig;
    (void)what;
    screen_close(w);
    raise(SIGSTOP);
    keys_open(w); /* somebody continued it */
    if (!w->now) return;
    screen_open(w);
    resized(SIGWINCH, 0, w);
}

static void interrupted(void *arg) { screen_close(arg); }

static void time_came(struct timer *t) { wake(container_of(t, struct stats_watch, due)); }

static struct event *listen_to(struct stats_watch *w, int what, short how, event_callback_fn fn)
{
    struct event *e = event_new(loop_base(w->cli->net.loop), what, how | EV_PERSIST, fn, w);

    if (e) event_add(e, NULL);
    return e;
}

/* ---- the rounds */

/* EXIT_OK: there is something new; else why it is not. */
static int ask(struct stats_watch *w)
{
    json_t *answer;
    int code = admin_try_json(w->cli, METHOD_GET, "stats", w->o->query, NULL, &answer, w->why, sizeof w->why);

    if (code != EXIT_OK) return code;
    json_decref(w->before);
    w->before = stats_comparable(answer, w->now) ? w->now : NULL;
    if (!w->before) json_decref(w->now);
    w->now = answer;
    w->answered_ns = clock_ns();
    if (w->before) stats_history_add(&w->history, w->now, w->before);
    return EXIT_OK;
}

static void wait_until(struct stats_watch *w, uint64_t due_ns)
{
    uint64_t now = clock_ns();

    timer_set(&w->due, due_ns > now ? (due_ns - now) / 1000000 : 0);
    w->waiting = true;
    if (!w->quit) net_run(&w->cli->net);
    w->waiting = false;
    timer_stop(&w->due);
}

static int rounds(struct stats_watch *w)
{
    uint64_t due_ns = clock_ns();

    for (uint64_t done = 0;;) {
        int code = ask(w);
        if (w->quit) return EXIT_OK;
        if (w->cli->net.interrupted) return EXIT_INTERRUPTED;
        if (code != EXIT_OK && !w->now) { /* the first time: it is not there at all */
            screen_close(w);
            cli_error("%s", w->why);
            return code;
        }
        if (code != EXIT_OK && !w->screen) cli_error("%s", w->why);
        screen_open(w);
        if (!show(w)) return EXIT_OK;
        if (++done == w->o->count) return EXIT_OK;
        due_ns += w->o->interval_ms * 1000000;
        if (due_ns < clock_ns()) due_ns = clock_ns(); /* a slow answer: no burst of questions after it */
        wait_until(w, due_ns);
        if (w->quit) return EXIT_OK;
        if (w->cli->net.interrupted) return EXIT_INTERRUPTED;
    }
}

static void end(struct stats_watch *w)
{
    screen_close(w);
    w->cli->net.on_interrupt = NULL;
    if (w->on_key) event_free(w->on_key);
    if (w->on_resize) event_free(w->on_resize);
    if (w->on_stop) event_free(w->on_stop);
    timer_stop(&w->due);
    json_decref(w->now);
    json_decref(w->before);
    strbuf_free(&w->text);
    free(w);
}

int stats_watch(struct cli *cli, const struct watch_options *o)
{
    struct stats_watch *w = calloc(1, sizeof *w);
    const char *term = getenv("TERM");

    if (!w) {
        cli_error("%s", err_text(ERR_NOMEM));
        return EXIT_FAILED;
    }
    w->cli = cli;
    w->o = o;
    w->screen = !cli->json && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
    strbuf_init(&w->text, (size_t)1 << 20);
    timer_init(&w->due, cli->net.loop, time_came);
    setlocale(LC_CTYPE, "");
    w->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    ask_size(w);
    cli->net.on_interrupt = interrupted;
    cli->net.interrupt_arg = w;
    if (w->screen) {
        w->on_resize = listen_to(w, SIGWINCH, EV_SIGNAL, resized);
        w->on_stop = listen_to(w, SIGTSTP, EV_SIGNAL, stopped);
        if (isatty(STDIN_FILENO)) w->on_key = listen_to(w, STDIN_FILENO, EV_READ, key_pressed);
    }
    keys_open(w);
    int code = rounds(w);
    end(w);
    return code;
}
