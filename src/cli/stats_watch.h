/* stats_watch.h - statistics again and again: a live screen on a terminal, blocks of text (or lines of JSON) elsewhere. */
#ifndef S3P_CLI_STATS_WATCH_H
#define S3P_CLI_STATS_WATCH_H

#include "cli/cli.h"

struct watch_options {
    struct str query;     /* of stats: "since=..."; {NULL, 0}: none */
    uint64_t interval_ms;
    uint64_t count;       /* times; 0: until it is ended */
};
int stats_watch(struct cli *cli, const struct watch_options *o); /* an exit code */

#endif
