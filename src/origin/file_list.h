/* file_list.h - S3's listings over a directory: ListObjects, ListObjectsV2 and ListAllMyBuckets (Amazon S3 API
 * Reference). Asks the disk for sorted paths in rounds, folds them at the delimiter, writes the document. */
#ifndef S3P_ORIGIN_FILE_LIST_H
#define S3P_ORIGIN_FILE_LIST_H

#include "base/pool.h"
#include "io/disk.h"

struct file_list {
    /* what was asked */
    struct str prefix, delimiter, after, start_after, token;
    size_t max;
    bool v2, url_encoded;
    /* how far it is */
    size_t count;
    bool truncated;
    struct strbuf contents, prefixes, last, folded, ask_after;
};
/* From a raw query; strings are decoded into mem. ERR_BAD_REQUEST, ERR_NOMEM. Free it in any case. */
enum err file_list_init(struct file_list *l, struct str query, struct pool *mem);
void file_list_free(struct file_list *l);
/* The next round's question: prefix, after, max, fold of a DISK_LIST job. */
enum err file_list_ask(struct file_list *l, struct disk_job *j);
/* Its answer. True: no further round is needed. */
bool file_list_take(struct file_list *l, const struct disk_list *found);
enum err file_list_write(struct file_list *l, struct str bucket, struct strbuf *out);

struct bucket_list {
    int root_fd;
    struct strbuf out;
};
/* On a disk thread: the directories below root as <Bucket> elements, sorted by name. */
enum err bucket_list_read(struct bucket_list *b);

/* Strong: another file, or another state of it, has another tag. buf at least 80 bytes; with quotes. */
struct str file_etag(uint64_t device, uint64_t inode, uint64_t size, struct timespec mtime, char *buf);

#endif
