/* aws_chunked.c - takes the client's chunk signatures off an upload.
 *
 *   in:   size;chunk-signature=...CRLF data CRLF ... 0;chunk-signature=...CRLF [trailers] CRLF
 *   out:  SIGNED            the data alone
 *         with trailers     size CRLF data CRLF ... 0 CRLF trailers CRLF  (STREAMING-UNSIGNED-PAYLOAD-TRAILER)
 *
 * The output's length has to be known before the first byte: its chunks have one fixed size whatever the client's were,
 * and the length of each trailer follows from its algorithm. Data is passed on as slices of the source's chunks, never
 * copied; the framing comes from constants and a few pool bytes, so that memory does not grow with the body.
 *
 * An upload that turns out malformed must not become an object. With trailers that comes by itself: the origin needs the
 * last chunk, and that is not given before the client's end was seen. Plain bodies would be complete with their last
 * data byte, so this one byte is kept back until the end was seen.
 *
 *   state    | next input
 *   SIZE     | a chunk's size line
 *   DATA     | its bytes
 *   DATA_END | the CRLF behind them
 *   TRAILER  | trailer lines, up to the empty one
 *   TAIL     | nothing: the source must end here
 *   VERIFIED | the source has ended where it had to; what is kept back may go out */
#include "s3/aws_chunked.h"

#include "base/check.h"

#define FILTER_MAGIC 0x61776368u
#define LINE_BYTES 1024 /* of a size line (longest known: ECDSA, about 170) or trailer line */
#define TRAILER_LINES 32
#define TRAILERS_MAX 8
#define OUT_CHUNK 0x100000u /* as the SDKs do it; some servers refuse chunks over 16 MiB */
#define OUT_CHUNK_HEX "100000"
#define PULL_MIN_BYTES 4096 /* of the source, even if the consumer wants less: framing is no progress for it */

/* clang-format off */
#define LIT(s) {(s), sizeof(s) - 1} /* STR_LIT for static tables */
/* clang-format on */

enum state { SIZE, DATA, DATA_END, TRAILER, TAIL, VERIFIED };

/* A source chunk of which slices may be out with the consumer; released with the last of them. */
struct hold {
    struct filter *filter;
    struct chunk chunk;
    unsigned refs;
    enum chunk_end how;
    struct hold *next_free;
};

struct trailer {
    struct str name, value; /* value: what came, in `text` */
    size_t value_len;       /* what the algorithm makes */
};

struct filter {
    struct body body; /* what the consumer sees */
    uint32_t magic;
    struct body *src;
    struct pool *pool;
    enum aws_chunked_kind kind;
    enum err error; /* sticks */
    enum state state;

    /* input */
    struct hold *in; /* partly read source chunk, one reference is ours; NULL none */
    size_t in_at;
    uint64_t chunk_left; /* of the client's current chunk */
    uint64_t data_left;  /* data bytes still to come, by x-amz-decoded-content-length */
    char line[LINE_BYTES];
    size_t line_n;
    unsigned trailer_lines;
    bool signature_seen;
    struct trailer trailers[TRAILERS_MAX];
    unsigned ntrailers;
    struct hold *free_holds;

    /* output */
    uint64_t out_chunk_left; /* of the current output chunk (with trailers only) */
    bool out_started;
    struct str pending;     /* framing to give before anything else */
    struct str tail_header; /* CRLF size CRLF of the short last output chunk */
    struct str ending;      /* last chunk and trailers; room for it, filled when verified */
    char last_byte;
    bool last_byte_kept, ended;
};

/* ---- which kind */

enum aws_chunked_kind aws_chunked_kind_of(const struct head *req)
{
    static const struct {
        struct str hash;
        enum aws_chunked_kind kind;
    } known[] = {
        {LIT("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), AWS_CHUNKED_SIGNED},
        {LIT("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), AWS_CHUNKED_SIGNED},
        {LIT("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"), AWS_CHUNKED_SIGNED_TRAILER},
        {LIT("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER"), AWS_CHUNKED_SIGNED_TRAILER},
        {LIT("STREAMING-UNSIGNED-PAYLOAD-TRAILER"), AWS_CHUNKED_UNSIGNED_TRAILER},
    };
    struct str hash = head_value(req, HDR_AMZ_CONTENT_SHA256);
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (str_eq(hash, known[i].hash)) return known[i].kind;
    return AWS_CHUNKED_NONE;
}

/* ---- source chunks and the slices of them */

static void hold_unref(struct hold *h)
{
    CHECK(h->refs > 0);
    if (--h->refs) return;
    chunk_release(&h->chunk, h->how);
    h->next_free = h->filter->free_holds;
    h->filter->free_holds = h;
}

static void slice_release(void *owner, enum chunk_end how)
{
    struct hold *h = owner;
    if (how == CHUNK_UNPROVEN) h->how = CHUNK_UNPROVEN;
    hold_unref(h);
}

static struct hold *hold_take(struct filter *f)
{
    struct hold *h = f->free_holds;
    if (h)
        f->free_holds = h->next_free;
    else
        h = pool_alloc(f->pool, sizeof *h);
    if (h) *h = (struct hold){.filter = f, .refs = 1, .how = CHUNK_COPIED};
    return h;
}

static void in_drop(struct filter *f)
{
    if (!f->in) return;
    hold_unref(f->in);
    f->in = NULL;
}

static struct str in_rest(const struct filter *f)
{
    if (!f->in) return (struct str){NULL, 0};
    return str_make((const char *)f->in->chunk.data + f->in_at, f->in->chunk.len - f->in_at);
}

static void in_took(struct filter *f, size_t n)
{
    f->in_at += n;
    if (f->in_at == f->in->chunk.len) in_drop(f);
}

/* ERR_OK: there is input now. */
static enum err in_fill(struct filter *f, size_t budget)
{
    while (!f->in) {
        unsigned n = 0;
        struct hold *h = hold_take(f);
        if (!h) return ERR_NOMEM;
        enum err e = body_pull(f->src, &h->chunk, 1, budget > PULL_MIN_BYTES ? budget : PULL_MIN_BYTES, &n);
        if (e || n == 0) {
            h->chunk.release = NULL;
            hold_unref(h);
            return e ? e : ERR_AGAIN;
        }
        f->in = h;
        f->in_at = 0;
        if (h->chunk.len == 0) in_drop(f);
    }
    return ERR_OK;
}

/* ---- parsing */

static bool is_control(char c) { return (unsigned char)c < 0x20 || c == 0x7f; }

/* Moves input into f->line up to and without LF. ERR_OK: a whole line; ERR_AGAIN: more is needed. */
static enum err line_read(struct filter *f)
{
    struct str in = in_rest(f);
    size_t n = str_find(in, '\n');
    bool whole = n < in.n;
    if (n > LINE_BYTES - f->line_n) return ERR_BAD_CHUNK;
    memcpy(f->line + f->line_n, in.p, n);
    f->line_n += n;
    in_took(f, whole ? n + 1 : n);
    return whole ? ERR_OK : ERR_AGAIN;
}

/* size[;extension] CR */
static enum err size_line(struct filter *f)
{
    struct str line = str_make(f->line, f->line_n);
    uint64_t size;

    f->line_n = 0;
    if (line.n == 0 || line.p[line.n - 1] != '\r') return ERR_BAD_CHUNK;
    line.n--;
    for (size_t i = 0; i < line.n; i++)
        if (is_control(line.p[i])) return ERR_BAD_CHUNK;
    if (!str_hex_to_u64(str_make(line.p, str_find(line, ';')), &size)) return ERR_BAD_CHUNK;
    if (size > f->data_left || (size == 0 && f->data_left)) return ERR_BAD_CHUNK;
    f->chunk_left = size;
    f->state = size ? DATA : TRAILER;
    return ERR_OK;
}

/* CR LF, possibly in two pieces. */
static enum err data_end(struct filter *f)
{
    enum err e = line_read(f);
    if (f->line_n > 1 || (f->line_n == 1 && f->line[0] != '\r')) return ERR_BAD_CHUNK;
    if (e) return e;
    if (f->line_n != 1) return ERR_BAD_CHUNK;
    f->line_n = 0;
    f->state = SIZE;
    return ERR_OK;
}

static bool is_checksum(struct str s, size_t len)
{
    if (s.n != len) return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool base64 =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
        if (!base64 && !(c == '=' && i + 2 >= s.n)) return false;
    }
    return true;
}

static struct trailer *trailer_find(struct filter *f, struct str name)
{
    for (unsigned i = 0; i < f->ntrailers; i++)
        if (str_eq_ci(f->trailers[i].name, name)) return &f->trailers[i];
    return NULL;
}

static bool trailers_complete(const struct filter *f)
{
    for (unsigned i = 0; i < f->ntrailers; i++)
        if (!f->trailers[i].value.p) return false;
    return true;
}

static enum err trailer_field(struct filter *f, struct str line)
{
    size_t at = str_find(line, ':');
    if (at == line.n || f->kind == AWS_CHUNKED_SIGNED) return ERR_BAD_CHUNK;
    struct str name = str_make(line.p, at), value = str_trim(str_make(line.p + at + 1, line.n - at - 1));

    if (f->kind == AWS_CHUNKED_SIGNED_TRAILER && str_eq_ci(name, STR_LIT("x-amz-trailer-signature"))) {
        if (f->signature_seen) return ERR_BAD_CHUNK;
        f->signature_seen = true;
        return ERR_OK;
    }
    struct trailer *t = trailer_find(f, name);
    if (!t || t->value.p || f->signature_seen || !is_checksum(value, t->value_len)) return ERR_BAD_CHUNK;
    t->value = pool_str(f->pool, value);
    return t->value.p ? ERR_OK : ERR_NOMEM;
}

/* One line behind the last chunk. Lines may end with LF alone, and an empty one may stand before the signature: that is
 * how some clients write them. */
static enum err trailer_line(struct filter *f)
{
    struct str line = str_make(f->line, f->line_n);

    f->line_n = 0;
    if (++f->trailer_lines > TRAILER_LINES) return ERR_BAD_CHUNK;
    if (line.n && line.p[line.n - 1] == '\r') line.n--;
    for (size_t i = 0; i < line.n; i++)
        if (is_control(line.p[i]) && line.p[i] != '\t') return ERR_BAD_CHUNK;
    if (line.n) return trailer_field(f, line);
    if (f->kind == AWS_CHUNKED_SIGNED_TRAILER && !f->signature_seen) return ERR_OK;
    if (!trailers_complete(f)) return ERR_BAD_CHUNK;
    f->state = TAIL;
    return ERR_OK;
}

/* The source has ended: was that the right place? */
static enum err source_ended(struct filter *f)
{
    /* Some clients leave out the empty line behind the signature, which can only be the last one. */
    bool at_signature = f->state == TRAILER && f->signature_seen && f->line_n == 0 && trailers_complete(f);
    if (f->state != TAIL && !at_signature) return ERR_BAD_CHUNK;
    f->state = VERIFIED;
    return ERR_OK;
}

/* ---- output */

/* Last chunk and trailers into the room reserved at creation. */
static void ending_build(struct filter *f)
{
    char *w = (char *)f->ending.p; /* our own pool memory */
    bool first = !f->out_started;
    size_t at = 0;

#define ADD(text, len) (memcpy(w + at, (text), (len)), at += (len))
    if (!first) ADD("\r\n", 2);
    ADD("0\r\n", 3);
    for (unsigned i = 0; i < f->ntrailers; i++) {
        ADD(f->trailers[i].name.p, f->trailers[i].name.n);
        ADD(":", 1);
        ADD(f->trailers[i].value.p, f->trailers[i].value.n);
        ADD("\r\n", 2);
    }
    ADD("\r\n", 2);
#undef ADD
    CHECK(at == f->ending.n);
    f->pending = f->ending;
}

/* Everything is verified: what was kept back goes out. */
static void output_finish(struct filter *f)
{
    f->ended = true;
    if (f->kind != AWS_CHUNKED_SIGNED)
        ending_build(f);
    else if (f->last_byte_kept)
        f->pending = str_make(&f->last_byte, 1);
}

/* Opens the next output chunk; f->data_left counts from its first byte. */
static void out_chunk_open(struct filter *f)
{
    static const char between[] = "\r\n" OUT_CHUNK_HEX "\r\n";
    struct str header = STR_LIT(between);
    f->out_chunk_left = OUT_CHUNK;
    if (f->data_left < OUT_CHUNK) {
        header = f->tail_header;
        f->out_chunk_left = f->data_left;
    }
    if (!f->out_started) header = str_make(header.p + 2, header.n - 2);
    f->out_started = true;
    f->pending = header;
}

static void give_slice(struct filter *f, struct chunk *out, size_t n)
{
    const struct chunk *c = &f->in->chunk;
    *out = (struct chunk){.data = c->data + f->in_at,
                          .len = n,
                          .fd = c->fd,
                          .fd_off = c->fd >= 0 ? c->fd_off + f->in_at : 0,
                          .owner = f->in,
                          .release = slice_release};
    f->in->refs++;
}

/* Data is next in both directions. Fills *out (*given bytes), or sets pending framing, or keeps the last byte back. */
static void data_step(struct filter *f, struct chunk *out, size_t budget, size_t *given)
{
    bool framed = f->kind != AWS_CHUNKED_SIGNED;
    uint64_t n = in_rest(f).n;

    if (framed && f->out_chunk_left == 0) {
        out_chunk_open(f);
        return;
    }
    if (n > f->chunk_left) n = f->chunk_left;
    if (n > budget) n = budget;
    if (framed && n > f->out_chunk_left) n = f->out_chunk_left;
    if (!framed && n == f->data_left && n > 1) n--;
    if (!framed && f->data_left == 1) {
        f->last_byte = in_rest(f).p[0];
        f->last_byte_kept = true;
    } else {
        give_slice(f, out, (size_t)n);
        *given = (size_t)n;
    }
    if (framed) f->out_chunk_left -= n;
    f->data_left -= n;
    f->chunk_left -= n;
    if (f->chunk_left == 0) f->state = DATA_END;
    in_took(f, (size_t)n);
}

/* One step on input that is there. */
static enum err input_step(struct filter *f, struct chunk *out, size_t budget, size_t *given)
{
    enum err e;
    switch (f->state) {
    case SIZE: e = line_read(f); return e ? e : size_line(f);
    case DATA: data_step(f, out, budget, given); return ERR_OK;
    case DATA_END: return data_end(f);
    case TRAILER: e = line_read(f); return e ? e : trailer_line(f);
    case TAIL: return ERR_BAD_CHUNK; /* bytes behind the end */
    case VERIFIED: break;
    }
    return ERR_INTERNAL;
}

static void pending_give(struct filter *f, struct chunk *out, size_t budget, size_t *given)
{
    size_t n = f->pending.n < budget ? f->pending.n : budget;
    *out = (struct chunk){.data = (const uint8_t *)f->pending.p, .len = n, .fd = -1};
    f->pending = str_make(f->pending.p + n, f->pending.n - n);
    *given = n;
}

/* Makes some progress: *given bytes in *out, possibly 0. Anything but ERR_OK ends this pull. */
static enum err filter_step(struct filter *f, struct chunk *out, size_t budget, size_t *given)
{
    *given = 0;
    if (f->pending.n) {
        pending_give(f, out, budget, given);
        return ERR_OK;
    }
    if (f->ended) return ERR_END;
    if (f->state == VERIFIED) {
        output_finish(f);
        return ERR_OK;
    }
    enum err e = in_fill(f, budget);
    if (e == ERR_END) return source_ended(f);
    if (e) return e;
    e = input_step(f, out, budget, given);
    /* A line that goes on in the next source chunk: try for that one at once. */
    return e == ERR_AGAIN ? ERR_OK : e;
}

static enum err filter_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct filter *f = container_of(b, struct filter, body);
    enum err e = f->error;

    CHECK_OBJ(f, FILTER_MAGIC);
    *n = 0;
    while (!e && *n < max && max_bytes) {
        size_t given;
        e = filter_step(f, &out[*n], max_bytes, &given);
        max_bytes -= given;
        if (given) (*n)++;
    }
    if (e && e != ERR_AGAIN) f->error = e; /* told by the next pull if this one has something to give */
    if (*n) return ERR_OK;
    return e ? e : ERR_AGAIN;
}

static void filter_close(struct body *b)
{
    struct filter *f = container_of(b, struct filter, body);
    CHECK_OBJ(f, FILTER_MAGIC);
    f->error = ERR_CANCELLED;
    in_drop(f);
    body_close(f->src);
}

static void filter_notified(void *arg)
{
    struct filter *f = arg;
    CHECK_OBJ(f, FILTER_MAGIC);
    body_notify(&f->body);
}

static const struct body_ops filter_ops = {filter_pull, filter_close};

/* ---- creation */

/* Base64 length of the checksums S3 takes as trailers; 0: not one of them. */
static size_t checksum_len(struct str name)
{
    static const struct {
        struct str name;
        size_t len;
    } known[] = {
        {LIT("x-amz-checksum-crc32"), 8},      {LIT("x-amz-checksum-crc32c"), 8},
        {LIT("x-amz-checksum-crc64nvme"), 12}, {LIT("x-amz-checksum-sha1"), 28},
        {LIT("x-amz-checksum-sha256"), 44},    {LIT("x-amz-checksum-sha512"), 88},
        {LIT("x-amz-checksum-md5"), 24},       {LIT("x-amz-checksum-xxhash64"), 12},
        {LIT("x-amz-checksum-xxhash3"), 12},   {LIT("x-amz-checksum-xxhash128"), 24},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (str_eq_ci(known[i].name, name)) return known[i].len;
    return 0;
}

static enum err trailers_read(struct filter *f, struct str names)
{
    struct str member;
    while (hdr_list_next(&names, &member)) {
        size_t len = checksum_len(member);
        if (len == 0) return ERR_NOT_IMPLEMENTED;
        if (f->ntrailers == TRAILERS_MAX || trailer_find(f, member)) return ERR_BAD_REQUEST;
        struct str name = pool_str(f->pool, member);
        if (!name.p) return ERR_NOMEM;
        f->trailers[f->ntrailers++] = (struct trailer){.name = name, .value_len = len};
    }
    return ERR_OK;
}

static enum err framing_prepare(struct filter *f, uint64_t decoded)
{
    uint64_t whole = decoded / OUT_CHUNK, rest = decoded % OUT_CHUNK;
    size_t ending = 3 + 2 + (decoded ? 2 : 0); /* [CRLF] 0 CRLF trailers CRLF */

    for (unsigned i = 0; i < f->ntrailers; i++) ending += f->trailers[i].name.n + 1 + f->trailers[i].value_len + 2;
    char *room = pool_alloc(f->pool, ending);
    f->tail_header = pool_f(f->pool, "\r\n%llx\r\n", (unsigned long long)rest);
    if (!room || !f->tail_header.p) return ERR_NOMEM;
    f->ending = str_make(room, ending);

    /* CRLF size CRLF for each chunk, but the first has no CRLF in front. */
    uint64_t framing = whole * (sizeof OUT_CHUNK_HEX - 1 + 4) + (rest ? f->tail_header.n : 0) + ending;
    if (decoded) framing -= 2;
    f->body.length = (int64_t)(decoded + framing);
    return ERR_OK;
}

enum err aws_chunked_filter(struct body *src, enum aws_chunked_kind kind, uint64_t decoded_length,
                            struct str trailer_names, struct pool *pool, struct body **out)
{
    enum err e;

    CHECK(kind != AWS_CHUNKED_NONE);
    if (decoded_length > INT64_MAX / 2) return ERR_BODY_TOO_LARGE; /* framing then cannot overflow either */
    struct filter *f = pool_zalloc(pool, sizeof *f);
    if (!f) return ERR_NOMEM;
    f->magic = FILTER_MAGIC;
    f->body = (struct body){.ops = &filter_ops, .length = (int64_t)decoded_length};
    f->src = src;
    f->pool = pool;
    f->kind = kind;
    f->data_left = decoded_length;
    if (kind != AWS_CHUNKED_SIGNED) {
        e = trailers_read(f, trailer_names);
        if (!e) e = framing_prepare(f, decoded_length);
        if (e) return e;
    }
    src->notify = filter_notified;
    src->notify_arg = f;
    *out = &f->body;
    return ERR_OK;
}
