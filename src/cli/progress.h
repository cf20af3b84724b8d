/* progress.h - how far it is: a bar on a terminal (standard error; rate over the last seconds, time left), plain lines every
 * few seconds, or nothing. Main thread only; drawn by a timer on the loop, a few times a second, never per event. */
#ifndef S3P_CLI_PROGRESS_H
#define S3P_CLI_PROGRESS_H

#include "cli/cli.h"

struct progress;
/* what: "downloading". Follows --progress, --quiet, and whether standard error is a terminal (whose width it asks for, also
 * after SIGWINCH). Never fails: without memory nothing is shown. */
struct progress *progress_start(struct cli *cli, const char *what);
/* Totals may grow while names are still being listed; final: these are all. */
void progress_total(struct progress *p, uint64_t objects, uint64_t bytes, bool final);
void progress_add(struct progress *p, uint64_t objects, int64_t bytes); /* done since the last call; negative: taken back */
/* A line above the bar (errors and notes go through here while one is shown). */
void progress_line(struct progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Ends it: the bar is removed, with `summary` one line "120 objects, 1.2 GiB in 3.4 s, 361.2 MiB/s" stays (not with --quiet or
 * progress none). NULL is fine everywhere. */
void progress_end(struct progress *p, bool summary);

/* What is shown, for progress.c and its test: one line of at most `columns` characters, what matters least left out first;
 * bar false: without the drawn bar. buf of at least PROGRESS_LINE bytes; returns it. */
#define PROGRESS_LINE 512
struct progress_view {
    const char *what;
    uint64_t objects, bytes, total_objects, total_bytes;
    bool final;              /* the totals are all */
    double bytes_per_s, objects_per_s; /* of the last seconds */
    double elapsed_s;
};
char *progress_render(const struct progress_view *v, unsigned columns, bool bar, char *buf);

#endif
