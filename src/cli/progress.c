/* progress.c - see the header.
 *
 * The bar's line ends with a carriage return and no line feed: the cursor stands at its begin, so whatever prints a line of
 * its own (cli_error clears what stands there first) replaces it, and the next tick draws it again below. Nothing is left
 * to restore when the process dies. */
#include "cli/progress.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TICK_MS 250u
#define PLAIN_TICKS 20u   /* 5 s between plain lines */
#define SAMPLES 20u       /* the rate is that of the last 5 s */
#define CLEAR "\r\033[K"

struct sample {
    uint64_t ns, objects, bytes;
};
struct progress {
    const char *what;
    enum progress_mode mode; /* BAR, PLAIN or NONE */
    struct timer timer;
    struct event *resized;
    unsigned columns, ticks;
    uint64_t start_ns;
    uint64_t objects, bytes, total_objects, total_bytes;
    bool final;
    struct sample samples[SAMPLES]; /* a ring; the newest at ticks % SAMPLES */
};

/* ---- what is shown */

static unsigned percent_of(const struct progress_view *v)
{
    double part = v->total_bytes     ? (double)v->bytes / (double)v->total_bytes
                  : v->total_objects ? (double)v->objects / (double)v->total_objects
                                     : 0;
    return part >= 1 ? 100 : part > 0 ? (unsigned)(part * 100) : 0;
}

/* Seconds until the end at the present rate; < 0: nobody knows. */
static double time_left(const struct progress_view *v)
{
    if (!v->final) return -1;
    if (v->total_bytes > v->bytes) return v->bytes_per_s > 0 ? (double)(v->total_bytes - v->bytes) / v->bytes_per_s : -1;
    if (v->total_objects > v->objects)
        return v->objects_per_s > 0 ? (double)(v->total_objects - v->objects) / v->objects_per_s : -1;
    return 0;
}

enum { PART_WHAT, PART_OBJECTS, PART_BYTES, PART_PERCENT, PART_RATE, PART_LEFT, PARTS };
struct parts {
    char text[PARTS][64];
};

static void parts_fill(const struct progress_view *v, struct parts *p)
{
    char a[32], b[32];
    const char *more = v->final ? "" : "+";
    double left = time_left(v);

    snprintf(p->text[PART_WHAT], sizeof p->text[0], "%s", v->what);
    if (v->total_objects > 1 || v->objects > 1)
        snprintf(p->text[PART_OBJECTS], sizeof p->text[0], "%llu/%llu%s", (unsigned long long)v->objects,
                 (unsigned long long)v->total_objects, more);
    human_bytes((double)v->bytes, a, sizeof a);
    if (v->total_bytes)
        snprintf(p->text[PART_BYTES], sizeof p->text[0], "%s/%s%s", a, human_bytes((double)v->total_bytes, b, sizeof b), more);
    else if (v->bytes) snprintf(p->text[PART_BYTES], sizeof p->text[0], "%s", a);
    if (v->final) snprintf(p->text[PART_PERCENT], sizeof p->text[0], "%3u%%", percent_of(v));
    if (v->bytes || v->total_bytes)
        snprintf(p->text[PART_RATE], sizeof p->text[0], "%s/s", human_bytes(v->bytes_per_s, a, sizeof a));
    else snprintf(p->text[PART_RATE], sizeof p->text[0], "%.0f/s", v->objects_per_s);
    if (left >= 0) snprintf(p->text[PART_LEFT], sizeof p->text[0], "%s left", human_duration(left, a, sizeof a));
}

static size_t parts_length(const struct parts *p)
{
    size_t n = 0;
    for (unsigned i = 0; i < PARTS; i++)
        if (p->text[i][0]) n += strlen(p->text[i]) + (n ? 2 : 0);
    return n;
}

/* "[====>     ]" of so many characters in all. */
static void draw_bar(char *to, size_t width, unsigned percent)
{
    size_t inside = width - 2, full = inside * percent / 100;

    to[0] = '[';
    memset(to + 1, ' ', inside);
    memset(to + 1, '=', full);
    if (full && full < inside) to[full] = '>';
    to[width - 1] = ']';
    to[width] = '\0';
}

char *progress_render(const struct progress_view *v, unsigned columns, bool bar, char *buf)
{
    static const unsigned char dispensable[] = {PART_WHAT, PART_LEFT, PART_OBJECTS, PART_RATE, PART_PERCENT};
    struct parts p = {{{0}}};
    char drawn[64] = "";
    size_t n = 0, room = columns < PROGRESS_LINE - 1 ? columns : PROGRESS_LINE - 1;

    parts_fill(v, &p);
    for (unsigned i = 0; i < ARRAY_LEN(dispensable) && parts_length(&p) > room; i++) p.text[dispensable[i]][0] = '\0';
    size_t spare = room - (parts_length(&p) < room ? parts_length(&p) : room);
    if (bar && v->final && spare >= 14) draw_bar(drawn, spare - 2 < 42 ? spare - 2 : 42, percent_of(v));
    buf[0] = '\0';
    for (unsigned i = 0; i < PARTS; i++) {
        if (i == PART_PERCENT && drawn[0]) n += (size_t)snprintf(buf + n, PROGRESS_LINE - n, "%s%s", n ? "  " : "", drawn);
        if (p.text[i][0]) n += (size_t)snprintf(buf + n, PROGRESS_LINE - n, "%s%s", n ? "  " : "", p.text[i]);
    }
    buf[room] = '\0';
    return buf;
}

/* ---- when */

static double seconds_since(uint64_t ns) { return (double)(clock_ns() - ns) / 1e9; }

static struct progress_view view_of(const struct progress *p)
{
    const struct sample *old = &p->samples[p->ticks + 1 < SAMPLES ? 0 : (p->ticks + 1) % SAMPLES];
    double s = seconds_since(old->ns);
    struct progress_view v = {.what = p->what, .objects = p->objects, .bytes = p->bytes, .total_objects = p->total_objects,
                              .total_bytes = p->total_bytes, .final = p->final, .elapsed_s = seconds_since(p->start_ns)};

    if (s > 0 && p->bytes > old->bytes) v.bytes_per_s = (double)(p->bytes - old->bytes) / s;
    if (s > 0 && p->objects > old->objects) v.objects_per_s = (double)(p->objects - old->objects) / s;
    return v;
}

static void draw(const struct progress *p)
{
    char line[PROGRESS_LINE];
    struct progress_view v = view_of(p);

    if (p->mode == PROGRESS_BAR) fprintf(stderr, CLEAR "%s\r", progress_render(&v, p->columns - 1, true, line));
    else fprintf(stderr, "%s\n", progress_render(&v, PROGRESS_LINE, false, line));
}

static void tick(struct timer *t)
{
    struct progress *p = container_of(t, struct progress, timer);

    p->ticks++;
    if (p->mode == PROGRESS_BAR || p->ticks % PLAIN_TICKS == 0) draw(p);
    p->samples[p->ticks % SAMPLES] = (struct sample){clock_ns(), p->objects, p->bytes};
    timer_set(t, TICK_MS);
}

static void ask_width(struct progress *p)
{
    struct winsize w;

    p->columns = 80;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col >= 10) p->columns = w.ws_col;
}

static void on_resize(evutil_socket_t sig, short what, void *arg)
{
    struct progress *p = arg;

    (void)sig;
    (void)what;
    ask_width(p);
    draw(p);
}

static enum progress_mode mode_of(const struct cli *cli)
{
    const char *term = getenv("TERM");

    if (cli->quiet) return PROGRESS_NONE;
    if (cli->progress_mode != PROGRESS_AUTO) return cli->progress_mode;
    return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0 ? PROGRESS_BAR : PROGRESS_NONE;
}

struct progress *progress_start(struct cli *cli, const char *what)
{
    enum progress_mode mode = mode_of(cli);
    struct progress *p = mode == PROGRESS_NONE ? NULL : calloc(1, sizeof *p);

    if (!p) return NULL;
    p->what = what;
    p->mode = mode;
    p->start_ns = clock_ns();
    p->samples[0].ns = p->start_ns;
    ask_width(p);
    timer_init(&p->timer, cli->net.loop, tick);
    timer_set(&p->timer, TICK_MS);
    if (mode == PROGRESS_BAR && (p->resized = event_new(loop_base(cli->net.loop), SIGWINCH, EV_SIGNAL | EV_PERSIST, on_resize, p)))
        event_add(p->resized, NULL);
    return p;
}

/* ---- interface */

void progress_total(struct progress *p, uint64_t objects, uint64_t bytes, bool final)
{
    if (!p) return;
    p->total_objects = objects;
    p->total_bytes = bytes;
    p->final = final;
}

void progress_add(struct progress *p, uint64_t objects, int64_t bytes)
{
    if (!p) return;
    p->objects += objects;
    uint64_t back = bytes < 0 ? 0 - (uint64_t)bytes : 0;
    if (bytes >= 0) p->bytes += (uint64_t)bytes;
    else p->bytes -= p->bytes < back ? p->bytes : back;
}

void progress_line(struct progress *p, const char *fmt, ...)
{
    va_list args;
    char line[2048];

    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    for (char *c = line; *c; c++) /* as cli_error: names of objects may hold anything */
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
    fprintf(stderr, "%s%s\n", p && p->mode == PROGRESS_BAR ? CLEAR : "", line);
    if (p && p->mode == PROGRESS_BAR) draw(p);
}

static void print_summary(const struct progress *p)
{
    double s = seconds_since(p->start_ns);
    char bytes[32], rate[32], took[32];

    fprintf(stderr, "%llu object%s, %s in %s, %s/s\n", (unsigned long long)p->objects, p->objects == 1 ? "" : "s",
            human_bytes((double)p->bytes, bytes, sizeof bytes), human_duration(s, took, sizeof took),
            human_bytes(s > 0 ? (double)p->bytes / s : 0, rate, sizeof rate));
}

void progress_end(struct progress *p, bool summary)
{
    if (!p) return;
    timer_stop(&p->timer);
    if (p->resized) event_free(p->resized);
    if (p->mode == PROGRESS_BAR) fprintf(stderr, CLEAR);
    if (summary) print_summary(p);
    free(p);
}
