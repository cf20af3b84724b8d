/* sources.h - where the items of a transfer come from; see struct source of transfer.h. Each is freed by its close. */
#ifndef S3P_CLI_SOURCES_H
#define S3P_CLI_SOURCES_H

#include "cli/transfer.h"

/* Objects that are to become files below dir, or parts of another bucket. */
struct remote_source_conf {
    struct cli *cli;
    char **uris;              /* s3://...; they and the strings in them outlive the source */
    int nuris;
    const char *keylist;      /* a file, or "-"; NULL: none */
    const char *dir;          /* files go below it; NULL: file names the only one */
    const char *file;
    struct str to_bucket, to_prefix; /* copies instead: NULL none */
    bool to_exact;            /* to_prefix is the key of the only copy */
    bool recursive;           /* a URI without pattern is a directory, with its slash or without */
    bool globs;               /* patterns are understood */
};
/* NULL: no memory. Every URI has been parsed successfully before. */
struct source *source_remote(const struct remote_source_conf *c);

/* Local files that are to become objects. */
struct local_source_conf {
    char **paths;             /* files, with recursive directories, patterns where there is no such file */
    int npaths;
    struct str bucket, key;   /* key ends with '/' or is empty: file names are added; else it is the key of the only file */
    bool recursive;
};
struct source *source_local(const struct local_source_conf *c);

#endif
