/* cli.h - what all commands share: the table of commands, their options, exit codes, output.
 *
 * A command is one row: name, options, help, a function. The rows make `--help`, the shell completions and the man page, so
 * what is not in a row is not there. */
#ifndef S3P_CLI_CLI_H
#define S3P_CLI_CLI_H

#include <stddef.h>
#include <stdio.h>

#include "cli/call.h"
#include "cli/net.h"
#include "cli/place.h"

#define CLI_NAME "s3dlio-cli"

enum cli_exit {
    EXIT_OK = 0,
    EXIT_FAILED = 1,       /* it, or some of it, could not be done; lines on standard error say what and why */
    EXIT_USAGE = 2,        /* nothing was done */
    EXIT_NOT_THERE = 3,    /* what was named does not exist, or nothing matched */
    EXIT_INTERRUPTED = 130 /* SIGINT or SIGTERM */
};

enum opt_type {
    OPT_FLAG,     /* bool; true */
    OPT_TEXT,     /* const char * */
    OPT_UINT,     /* uint64_t, min..max */
    OPT_SIZE,     /* uint64_t bytes, as units.h reads them, min..max */
    OPT_DURATION  /* uint64_t ms, as units.h reads them, min..max */
};
struct opt {
    char letter;        /* 0: long only */
    const char *name;   /* without the dashes */
    enum opt_type type;
    const char *arg;    /* what stands in the help for its value; NULL for flags */
    size_t offset;      /* in the command's options (or struct cli's globals) */
    uint64_t min, max;  /* of numbers; max 0: no bound */
    const char *help;   /* one line, ends without a stop */
};

struct cli;
struct command {
    const char *name, *alias; /* alias NULL: none */
    const char *args;         /* as the help shows them: "s3://BUCKET/KEY... TARGET" */
    const char *summary;      /* one line */
    const char *details;      /* more lines for its --help and the man page; NULL: none */
    const struct opt *opts;   /* the last has no name; NULL: none */
    size_t opts_bytes;        /* of its options' struct, which starts zeroed */
    int min_args, max_args;   /* -1: no bound */
    bool offline;             /* needs no connection: cli->net is closed */
    /* Returns an exit code. args are the operands; opts its filled struct. */
    int (*run)(struct cli *cli, const void *opts, int nargs, char **args);
    void (*defaults)(void *opts); /* before the options are read; NULL: zeros are right */
    /* After they were read and before connections are opened, for what these depend on; NULL: nothing. */
    void (*adjust)(struct cli *cli, const void *opts);
};
/* All commands; the last is NULL. Of main.c. */
extern const struct command *const cli_commands[];

enum progress_mode { PROGRESS_AUTO, PROGRESS_BAR, PROGRESS_PLAIN, PROGRESS_NONE };

struct cli {
    struct net net;
    struct net_options net_options;
    bool json, quiet, verbose;
    const char *progress;   /* --progress: auto, bar, plain, none */
    enum progress_mode progress_mode;
    const char *oplog_file; /* --op-log */
    struct oplog *oplog;    /* oplog.h; NULL: none. Open while a command runs that is not offline */
    const char *admin_path; /* --admin-path: "/_s3dlio/" */
    const struct command *command;
};

/* ---- options.c */

/* Reads argv: global options may stand before and after the command's name, "--" ends options. Fills cli, *command, opts
 * (malloc'ed, the caller frees) and the operands. Returns -1 to go on, else the exit code after having said what is wrong
 * or having printed the help. */
int cli_parse(struct cli *cli, int argc, char **argv, void **opts, int *nargs, char ***args);
/* What a line that is still being typed says so far, for completions: nothing is printed, nothing refused. Of the options of
 * every command, flags and texts are set in cli. words: the program's name first, the word under the cursor last. */
struct cli_scanned {
    const struct command *command; /* NULL: none yet */
    const struct opt *wants;       /* the last word is the value of this one; NULL: it is not */
    int operands;                  /* before the last word */
    bool ended;                    /* "--" was there */
};
void cli_scan(struct cli *cli, int n, char **words, struct cli_scanned *out);
const struct opt *cli_find_option(const struct command *c, struct str name); /* by its long name; c NULL: of every command */
extern const struct opt cli_global_opts[]; /* offsets in struct cli */
void cli_help(FILE *f);
void cli_help_command(FILE *f, const struct command *c);
void cli_help_man(FILE *f); /* of manual.c: the man page, in roff */

/* ---- out.c: what people read goes to stderr, what programs read to stdout */

/* One line: "s3dlio-cli: ...". */
void cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same unless --quiet. */
void cli_note(const struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "cannot WHAT s3://bucket/key: why", and the exit code that goes with it: EXIT_NOT_THERE, EXIT_INTERRUPTED or
 * EXIT_FAILED. */
int cli_failed(const struct call_result *r, const char *what, struct str bucket, struct str key);
/* A JSON value and a newline to stdout, at once; takes the reference, NULL counts as out of memory. False: could not be
 * written. */
struct json_t; /* jansson.h */
bool cli_print_json(struct json_t *value);
/* The same in one line, for streams of them; false: out of memory (which is said), or nobody takes it (see cli_flush). */
bool cli_print_json_line(struct json_t *value);
/* An operand that must be s3://BUCKET[/KEY], with a key where one is needed. False: what is wrong was said. */
bool cli_read_place(const char *text, bool needs_key, struct place *out);
/* A UTF-8 string, or what is none with its bad bytes as "\xNN" text; new reference. */
struct json_t *cli_json_str(struct str s);
/* Flushes stdout; EXIT_FAILED when not all that was printed arrived (a reader that left is no failure of ours). */
int cli_flush(int code);
/* "1.5 MiB", "812 B": for people. buf of at least 32 bytes; returns it. */
char *human_bytes(double bytes, char *buf, size_t n);
/* "3.2 s", "2:05", "1:02:03". */
char *human_duration(double seconds, char *buf, size_t n);
/* Bytes for a terminal or a line-oriented reader: control characters, and what is no UTF-8, as \xNN, the rest as it is. buf
 * grows; until freed. */
const char *printable(struct str s, struct strbuf *buf);
/* "2026-11-28T18:40:36.241Z" without the fraction; what looks otherwise as it is, printable. */
const char *printable_time(struct str s, struct strbuf *buf);

#endif
