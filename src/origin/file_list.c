/* file_list.c - see the header.
 *
 * Order is that of the keys' bytes. A common prefix stands where its first key would. A page ends after `max` entries and
 * is truncated if there is any further one; the next page begins after the last entry given, which may be a common prefix:
 * then all keys below it are skipped. */
#include "origin/file_list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "http/date.h"
#include "http/uri.h"
#include "s3/error_xml.h"

#define MAX_KEYS 1000
#define BUCKETS_MAX 10000
/* No path component is longer than NAME_MAX: this many 0xFF bytes after a prefix sort behind all that is below it. */
#define BEHIND_BYTES 256
#define XMLNS "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""

struct str file_etag(uint64_t device, uint64_t inode, uint64_t size, struct timespec mtime, char *buf)
{
    int n = sprintf(buf, "\"%llx-%llx-%llx-%llx\"", (unsigned long long)inode, (unsigned long long)device,
                    (unsigned long long)size,
                    (unsigned long long)mtime.tv_sec * 1000000000ull + (unsigned long long)mtime.tv_nsec);
    return str_make(buf, (size_t)n);
}

/* ---- the question */

/* Query values are form-encoded: '+' is a space. */
static struct str value_decode(struct str v, struct pool *mem)
{
    struct str copy = pool_str(mem, v);
    if (!copy.p) return copy;
    for (size_t i = 0; i < copy.n; i++)
        if (copy.p[i] == '+') ((char *)copy.p)[i] = ' ';
    return uri_decode(mem, copy);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The token of ours: the last entry's bytes in hex. */
static enum err token_decode(struct str token, struct pool *mem, struct str *out)
{
    if (token.n == 0 || token.n % 2) return ERR_BAD_REQUEST;
    char *p = pool_alloc(mem, token.n / 2);
    if (!p) return ERR_NOMEM;
    for (size_t i = 0; i < token.n; i += 2) {
        int hi = hex_digit(token.p[i]), lo = hex_digit(token.p[i + 1]);
        if (hi < 0 || lo < 0) return ERR_BAD_REQUEST;
        p[i / 2] = (char)(hi << 4 | lo);
    }
    *out = str_make(p, token.n / 2);
    return ERR_OK;
}

static enum err parameter_set(struct file_list *l, struct str name, struct str v, struct str *marker)
{
    uint64_t n;
    if (str_eq(name, STR_LIT("list-type"))) {
        if (!str_eq(v, STR_LIT("2"))) return ERR_BAD_REQUEST;
        l->v2 = true;
    } else if (str_eq(name, STR_LIT("prefix"))) {
        l->prefix = v;
    } else if (str_eq(name, STR_LIT("delimiter"))) {
        l->delimiter = v;
    } else if (str_eq(name, STR_LIT("marker"))) {
        *marker = v;
    } else if (str_eq(name, STR_LIT("start-after"))) {
        l->start_after = v;
    } else if (str_eq(name, STR_LIT("continuation-token"))) {
        l->token = v;
    } else if (str_eq(name, STR_LIT("encoding-type"))) {
        if (!str_eq(v, STR_LIT("url"))) return ERR_BAD_REQUEST;
        l->url_encoded = true;
    } else if (str_eq(name, STR_LIT("max-keys"))) {
        if (!str_to_u64(v, &n)) return ERR_BAD_REQUEST;
        l->max = n < MAX_KEYS ? (size_t)n : MAX_KEYS;
    }
    return ERR_OK;
}

enum err file_list_init(struct file_list *l, struct str query, struct pool *mem)
{
    struct str name, raw, marker = {NULL, 0};
    *l = (struct file_list){.max = MAX_KEYS};
    strbuf_init(&l->contents, 0);
    strbuf_init(&l->prefixes, 0);
    strbuf_init(&l->last, 0);
    strbuf_init(&l->folded, 0);
    strbuf_init(&l->ask_after, 0);
    while (query_next(&query, &name, &raw)) {
        struct str v = value_decode(raw, mem);
        if (!v.p && raw.n) return ERR_BAD_REQUEST;
        enum err e = parameter_set(l, name, v, &marker);
        if (e != ERR_OK) return e;
    }
    if (!l->v2) {
        l->after = l->start_after = marker;
        return ERR_OK;
    }
    l->after = l->start_after;
    return l->token.n ? token_decode(l->token, mem, &l->after) : ERR_OK;
}

void file_list_free(struct file_list *l)
{
    strbuf_free(&l->contents);
    strbuf_free(&l->prefixes);
    strbuf_free(&l->last);
    strbuf_free(&l->folded);
    strbuf_free(&l->ask_after);
}

/* ---- folding */

/* The common prefix that key belongs to: up to and with the first delimiter behind the prefix. n == 0: to none. */
static struct str key_fold(const struct file_list *l, struct str key)
{
    if (l->delimiter.n == 0 || key.n <= l->prefix.n) return (struct str){NULL, 0};
    const char *from = key.p + l->prefix.n;
    const char *at = memmem(from, key.n - l->prefix.n, l->delimiter.p, l->delimiter.n);
    return at ? str_make(key.p, (size_t)(at - key.p) + l->delimiter.n) : (struct str){NULL, 0};
}

static void remember(struct strbuf *b, struct str s)
{
    b->n = 0;
    strbuf_str(b, s);
}

enum err file_list_ask(struct file_list *l, struct disk_job *j)
{
    struct str from = l->last.n ? strbuf_get(&l->last) : l->after;
    struct str fold = from.n >= l->prefix.n && str_starts(from, l->prefix) ? key_fold(l, from) : (struct str){NULL, 0};
    remember(&l->ask_after, from);
    if (fold.n && fold.n == from.n) { /* it is a common prefix: go on behind all of it */
        char behind[BEHIND_BYTES];
        memset(behind, 0xff, sizeof behind);
        strbuf_add(&l->ask_after, behind, sizeof behind);
        remember(&l->folded, fold);
    }
    j->op = DISK_LIST;
    j->prefix = l->prefix;
    j->after = strbuf_get(&l->ask_after);
    j->fold = str_eq(l->delimiter, STR_LIT("/"));
    j->max = l->max - l->count > 0 ? l->max - l->count : 1;
    if (l->delimiter.n && !j->fold) j->max = MAX_KEYS; /* many may fold into one */
    return l->ask_after.failed || l->folded.failed || l->last.failed ? ERR_NOMEM : ERR_OK;
}

static void put_encoded(const struct file_list *l, struct strbuf *out, struct str s)
{
    static const char keep[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
    if (!l->url_encoded) {
        xml_text(out, s);
        return;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] && strchr(keep, s.p[i]))
            strbuf_ch(out, s.p[i]);
        else
            strbuf_f(out, "%%%02X", (unsigned)(unsigned char)s.p[i]);
    }
}

static void emit_prefix(struct file_list *l, struct str p)
{
    strbuf_z(&l->prefixes, "<CommonPrefixes><Prefix>");
    put_encoded(l, &l->prefixes, p);
    strbuf_z(&l->prefixes, "</Prefix></CommonPrefixes>");
    remember(&l->folded, p);
}

static void emit_key(struct file_list *l, const struct disk_entry *e)
{
    char etag[80], date[25];
    struct strbuf *out = &l->contents;
    date_format_iso_ms((int64_t)e->mtime.tv_sec * 1000 + e->mtime.tv_nsec / 1000000, date);
    strbuf_z(out, "<Contents><Key>");
    put_encoded(l, out, e->path);
    strbuf_f(out, "</Key><LastModified>%s</LastModified><ETag>", date);
    xml_text(out, file_etag(e->device, e->inode, e->size, e->mtime, etag));
    strbuf_f(out, "</ETag><Size>%llu</Size><StorageClass>STANDARD</StorageClass></Contents>",
             (unsigned long long)e->size);
}

bool file_list_take(struct file_list *l, const struct disk_list *found)
{
    if (l->max == 0) return true;
    for (size_t i = 0; i < found->n; i++) {
        const struct disk_entry *e = &found->entries[i];
        struct str fold = key_fold(l, e->path);
        if (fold.n && str_eq(fold, strbuf_get(&l->folded))) continue;
        if (l->count == l->max) {
            l->truncated = true;
            return true;
        }
        if (fold.n)
            emit_prefix(l, fold);
        else
            emit_key(l, e);
        remember(&l->last, fold.n ? fold : e->path);
        l->count++;
    }
    if (!found->truncated) return true;
    l->truncated = l->count == l->max && (l->delimiter.n == 0 || str_eq(l->delimiter, STR_LIT("/")));
    return l->truncated;
}

/* ---- the document */

static void put_element(const struct file_list *l, struct strbuf *out, const char *name, struct str v)
{
    strbuf_f(out, "<%s>", name);
    put_encoded(l, out, v);
    strbuf_f(out, "</%s>", name);
}

static void put_hex_element(struct strbuf *out, const char *name, struct str v)
{
    strbuf_f(out, "<%s>", name);
    for (size_t i = 0; i < v.n; i++) strbuf_f(out, "%02x", (unsigned)(unsigned char)v.p[i]);
    strbuf_f(out, "</%s>", name);
}

static void put_position(const struct file_list *l, struct strbuf *out)
{
    struct str last = strbuf_get(&l->last);
    if (!l->v2) {
        put_element(l, out, "Marker", l->after);
        if (l->truncated && l->delimiter.n) put_element(l, out, "NextMarker", last);
        return;
    }
    if (l->token.n) {
        strbuf_z(out, "<ContinuationToken>");
        xml_text(out, l->token);
        strbuf_z(out, "</ContinuationToken>");
    }
    if (l->start_after.n) put_element(l, out, "StartAfter", l->start_after);
    strbuf_f(out, "<KeyCount>%zu</KeyCount>", l->count);
    if (l->truncated) put_hex_element(out, "NextContinuationToken", last);
}

enum err file_list_write(struct file_list *l, struct str bucket, struct strbuf *out)
{
    strbuf_z(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult " XMLNS "><Name>");
    xml_text(out, bucket);
    strbuf_z(out, "</Name>");
    put_element(l, out, "Prefix", l->prefix);
    put_position(l, out);
    strbuf_f(out, "<MaxKeys>%zu</MaxKeys>", l->max);
    if (l->delimiter.n) put_element(l, out, "Delimiter", l->delimiter);
    if (l->url_encoded) strbuf_z(out, "<EncodingType>url</EncodingType>");
    strbuf_f(out, "<IsTruncated>%s</IsTruncated>", l->truncated ? "true" : "false");
    strbuf_str(out, strbuf_get(&l->contents));
    strbuf_str(out, strbuf_get(&l->prefixes));
    strbuf_z(out, "</ListBucketResult>");
    bool failed = out->failed || l->contents.failed || l->prefixes.failed || l->last.failed || l->folded.failed;
    return failed ? ERR_NOMEM : ERR_OK;
}

/* ---- buckets */

static int compare_texts(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static enum err bucket_names(DIR *dir, char **names, size_t *n)
{
    const struct dirent *de;
    while ((errno = 0, de = readdir(dir)) != NULL) {
        struct stat st;
        if (de->d_name[0] == '.') continue; /* no bucket's name begins with a dot */
        if (de->d_type != DT_UNKNOWN && de->d_type != DT_DIR) continue;
        if (fstatat(dirfd(dir), de->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(st.st_mode)) continue;
        if (*n == BUCKETS_MAX) return ERR_OVERLOAD;
        names[*n] = str_dup(str_c(de->d_name));
        if (!names[*n]) return ERR_NOMEM;
        (*n)++;
    }
    return errno ? ERR_IO : ERR_OK;
}

static void put_bucket(struct bucket_list *b, int dir_fd, const char *name)
{
    struct stat st;
    char date[25];
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return; /* gone meanwhile */
    date_format_iso_ms((int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000, date);
    strbuf_z(&b->out, "<Bucket><Name>");
    xml_text(&b->out, str_c(name));
    strbuf_f(&b->out, "</Name><CreationDate>%s</CreationDate></Bucket>", date);
}

enum err bucket_list_read(struct bucket_list *b)
{
    size_t n = 0;
    enum err e = ERR_NOMEM;
    char **names = calloc(BUCKETS_MAX, sizeof *names);
    int fd = names ? openat(b->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (names && !dir) e = ERR_IO;
    if (dir) {
        e = bucket_names(dir, names, &n);
        qsort(names, n, sizeof *names, compare_texts);
        strbuf_z(&b->out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListAllMyBucketsResult " XMLNS
                          "><Owner><ID>s3dlio-proxy</ID><DisplayName>s3dlio-proxy</DisplayName></Owner><Buckets>");
        for (size_t i = 0; i < n; i++) put_bucket(b, fd, names[i]);
        strbuf_z(&b->out, "</Buckets></ListAllMyBucketsResult>");
        closedir(dir);
    } else if (fd >= 0) {
        close(fd);
    }
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
    return e == ERR_OK && b->out.failed ? ERR_NOMEM : e;
}
