/* buckets.h - the list of buckets, which `ls` and `list-buckets` both print. */
#ifndef S3P_CLI_BUCKETS_H
#define S3P_CLI_BUCKETS_H

#include "cli/cli.h"

/* Prints them; an exit code. */
int buckets_list(struct cli *cli);

#endif
