/* remove.h - deleting objects: named ones with a DELETE each, what a listing finds with a DeleteObjects for each thousand,
 * several of either at a time. Memory holds what is under way. */
#ifndef S3P_CLI_REMOVE_H
#define S3P_CLI_REMOVE_H

#include "cli/cli.h"
#include "cli/pattern.h"

#define REMOVE_JOBS_MAX 256u
struct remove_options {
    unsigned jobs;                 /* requests at a time, at most REMOVE_JOBS_MAX */
    bool dry_run;                  /* prints what would be deleted */
    const struct pattern *pattern; /* NULL: all */
};
struct removed {
    uint64_t deleted, failed;
};
/* Adds to *sum; failures are told as they come. An exit code. */
int remove_named(struct cli *cli, const struct remove_options *o, const struct place *places, size_t n, struct removed *sum);
/* The object of that key and all below it as a directory; key "": everything. EXIT_NOT_THERE: there is nothing, or nothing
 * matches. */
int remove_tree(struct cli *cli, const struct remove_options *o, const struct place *root, struct removed *sum);

#endif
