/* oplog.c - see the header.
 *
 * A line is put together in `line`, compressed into `out`, and `out` is written when it is full. The clock of the lines is
 * the monotonic one, moved to the wall clock's time once, at the start: a clock that is set meanwhile cannot make an
 * operation end before it began.
 *
 * Readers of this format are CSV readers with a tab: a field with a quotation mark in it is quoted as RFC 4180 says, and
 * bytes that are no UTF-8 are escaped (\xNN), since some of them refuse a file that has any. */
#include "cli/oplog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#define LEVEL 1                          /* fast: it runs beside the transfers, on their thread */
#define LINE_BYTES ((size_t)64 << 10)    /* a key has 1 KiB, an error text less */
#define OUT_BYTES ((size_t)128 << 10)    /* of compressed bytes, then they are written */
#define FIELD_BYTES ((size_t)16 << 10)

struct oplog {
    int fd;
    ZSTD_CCtx *zstd;
    struct strbuf line, field;
    char *out;
    size_t out_n;
    char *path, *endpoint, *client_id;
    uint64_t idx;
    int64_t wall_minus_monotonic_ns;
    int failed;            /* errno of the first write that failed */
    const char *zstd_error;
};

/* ---- bytes out */

static void write_out(struct oplog *l)
{
    const char *p = l->out;

    while (l->out_n && !l->failed) {
        ssize_t n = write(l->fd, p, l->out_n);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            l->failed = errno;
            break;
        }
        p += n;
        l->out_n -= (size_t)n;
    }
    l->out_n = 0;
}

static void compress_bytes(struct oplog *l, struct str bytes, ZSTD_EndDirective how)
{
    ZSTD_inBuffer in = {bytes.p, bytes.n, 0};
    size_t left = 1;

    while (!l->failed && !l->zstd_error && (in.pos < in.size || (how != ZSTD_e_continue && left))) {
        ZSTD_outBuffer out = {l->out, OUT_BYTES, l->out_n};
        left = ZSTD_compressStream2(l->zstd, &out, &in, how);
        l->out_n = out.pos;
        if (ZSTD_isError(left)) l->zstd_error = ZSTD_getErrorName(left);
        if (l->out_n == OUT_BYTES || (how == ZSTD_e_end && left == 0)) write_out(l);
    }
}

/* ---- fields */

/* How many bytes the UTF-8 character at s has; 0: it is none. */
static unsigned utf8_length(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    unsigned n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;

    if (n == 0 || n > s.n) return 0;
    for (unsigned i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (n == 3 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0))) return 0; /* overlong, surrogates */
    if (n == 4 && ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90))) return 0;
    return n;
}

static void escape(struct strbuf *b, struct str s)
{
    while (s.n) {
        unsigned char c = (unsigned char)*s.p;
        unsigned n = utf8_length(s);

        if (c == '\\') strbuf_z(b, "\\\\");
        else if (c == '\t') strbuf_z(b, "\\t");
        else if (c == '\n') strbuf_z(b, "\\n");
        else if (c == '\r') strbuf_z(b, "\\r");
        else if (n == 0 || c < ' ' || c == 0x7f) strbuf_f(b, "\\x%02x", c);
        else strbuf_add(b, s.p, n);
        n = n ? n : 1;
        s = str_make(s.p + n, s.n - n);
    }
}

/* A quoted field, with the marks inside doubled, where there is one inside. */
static void put_text(struct oplog *l, struct str s)
{
    bool quoted = s.n && memchr(s.p, '"', s.n) != NULL;
    struct str text;

    l->field.n = 0;
    escape(&l->field, s);
    text = strbuf_get(&l->field);
    if (!quoted) {
        strbuf_str(&l->line, text);
        return;
    }
    strbuf_ch(&l->line, '"');
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '"') strbuf_ch(&l->line, '"');
        strbuf_ch(&l->line, text.p[i]);
    }
    strbuf_ch(&l->line, '"');
}

static void put_time(struct oplog *l, uint64_t monotonic_ns)
{
    int64_t ns = (int64_t)monotonic_ns + l->wall_minus_monotonic_ns;
    time_t s = (time_t)(ns / 1000000000);
    struct tm tm;
    char text[40];

    gmtime_r(&s, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    strbuf_f(&l->line, "%s.%09dZ", text, (int)(ns % 1000000000));
}

static void put_file(struct oplog *l, const struct op *o)
{
    struct strbuf name;

    strbuf_init(&name, FIELD_BYTES);
    strbuf_ch(&name, '/');
    strbuf_str(&name, o->bucket);
    if (o->bucket.n && o->key.n) strbuf_ch(&name, '/');
    strbuf_str(&name, o->key);
    put_text(l, strbuf_get(&name));
    strbuf_free(&name);
}

/* ---- interface */

void oplog_add(struct oplog *l, const struct op *o)
{
    uint64_t end_ns = o->end_ns > o->start_ns ? o->end_ns : o->start_ns;

    if (!l) return;
    l->line.n = 0;
    strbuf_f(&l->line, "%llu\t%u\t%s\t", (unsigned long long)l->idx++, o->thread, o->op);
    put_text(l, str_c(l->client_id));
    strbuf_f(&l->line, "\t%llu\t%llu\t", (unsigned long long)o->n_objects, (unsigned long long)o->bytes);
    put_text(l, str_c(l->endpoint));
    strbuf_ch(&l->line, '\t');
    put_file(l, o);
    strbuf_ch(&l->line, '\t');
    put_text(l, str_c(o->error));
    strbuf_ch(&l->line, '\t');
    put_time(l, o->start_ns);
    strbuf_ch(&l->line, '\t');
    if (o->first_byte_ns) put_time(l, o->first_byte_ns);
    strbuf_ch(&l->line, '\t');
    put_time(l, end_ns);
    strbuf_f(&l->line, "\t%llu\n", (unsigned long long)(end_ns - o->start_ns));
    if (l->line.failed || l->field.failed) l->failed = l->failed ? l->failed : ENOMEM;
    else compress_bytes(l, strbuf_get(&l->line), ZSTD_e_continue);
}

void oplog_call(struct oplog *l, const char *op, unsigned thread, struct str bucket, struct str key, uint64_t bytes,
                const struct call_result *r)
{
    char why[512];
    struct op o = {.op = op, .thread = thread, .n_objects = 1, .bytes = bytes, .bucket = bucket, .key = key,
                   .start_ns = r->start_ns, .first_byte_ns = r->bytes ? r->first_byte_ns : 0, .end_ns = r->end_ns};

    if (!l) return;
    if (r->err != ERR_OK) o.error = call_why(r, why, sizeof why);
    oplog_add(l, &o);
}

static int64_t wall_minus_monotonic(void)
{
    struct timespec wall;

    clock_gettime(CLOCK_REALTIME, &wall);
    return (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec - (int64_t)clock_ns();
}

static char *default_client_id(void)
{
    char host[256], *id = NULL;

    if (gethostname(host, sizeof host) != 0) strcpy(host, "localhost");
    host[sizeof host - 1] = '\0';
    return asprintf(&id, "%s-%ld", host, (long)getpid()) < 0 ? NULL : id;
}

static void oplog_free(struct oplog *l)
{
    if (l->fd >= 0) close(l->fd);
    ZSTD_freeCCtx(l->zstd);
    strbuf_free(&l->line);
    strbuf_free(&l->field);
    free(l->out);
    free(l->path);
    free(l->endpoint);
    free(l->client_id);
    free(l);
}

static bool prepare(struct oplog *l, const char *path, const char *endpoint, const char *client_id)
{
    strbuf_init(&l->line, LINE_BYTES);
    strbuf_init(&l->field, LINE_BYTES);
    l->wall_minus_monotonic_ns = wall_minus_monotonic();
    l->path = strdup(path);
    l->endpoint = strdup(endpoint);
    l->client_id = client_id ? strdup(client_id) : default_client_id();
    l->out = malloc(OUT_BYTES);
    l->zstd = ZSTD_createCCtx();
    if (!l->path || !l->endpoint || !l->client_id || !l->out || !l->zstd) return false;
    return !ZSTD_isError(ZSTD_CCtx_setParameter(l->zstd, ZSTD_c_compressionLevel, LEVEL)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(l->zstd, ZSTD_c_checksumFlag, 1));
}

bool oplog_open(const char *path, const char *endpoint, const char *client_id, struct oplog **out, char *msg, size_t n)
{
    struct oplog *l = calloc(1, sizeof *l);

    *out = NULL;
    if (l) l->fd = -1;
    if (!l || !prepare(l, path, endpoint, client_id)) {
        snprintf(msg, n, "%s", err_text(ERR_NOMEM));
        if (l) oplog_free(l);
        return false;
    }
    l->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (l->fd < 0) {
        snprintf(msg, n, "cannot create %s: %s", path, strerror(errno));
        oplog_free(l);
        return false;
    }
    compress_bytes(l,
                   STR_LIT("idx\tthread\top\tclient_id\tn_objects\tbytes\tendpoint\tfile\terror\tstart\tfirst_byte\tend\t"
                           "duration_ns\n"),
                   ZSTD_e_continue);
    *out = l;
    return true;
}

bool oplog_close(struct oplog *l, char *msg, size_t n)
{
    bool ok;

    if (!l) return true;
    compress_bytes(l, STR_LIT(""), ZSTD_e_end);
    if (close(l->fd) != 0 && !l->failed) l->failed = errno;
    l->fd = -1;
    ok = !l->failed && !l->zstd_error;
    if (!ok) snprintf(msg, n, "%s is not whole: %s", l->path, l->failed ? strerror(l->failed) : l->zstd_error);
    oplog_free(l);
    return ok;
}
