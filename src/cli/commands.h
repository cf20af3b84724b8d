/* commands.h - every command, in the order in which the help shows them. X(name): `command_NAME` is its row. */
#ifndef S3P_CLI_COMMANDS_H
#define S3P_CLI_COMMANDS_H

#include "cli/cli.h"

#define COMMAND_TABLE(X)                                                                                                     \
    X(ls) X(stat) X(get) X(put) X(download) X(upload) X(cp) X(rm)                                                             \
    X(list_buckets) X(create_bucket) X(delete_bucket)                                                                        \
    X(warm) X(purge) X(mark) X(cached) X(stats)                                                                              \
    X(bench) X(health) X(completion)

#define X(name) extern const struct command command_##name;
COMMAND_TABLE(X)
#undef X

#endif
