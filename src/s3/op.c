/* op.c - what an S3 request is.
 *
 * The query decides between an object's bytes and everything else that hangs on its name, so it is read as S3 reads it:
 * names are percent-decoded ("version%49d" is versionId) and case-sensitive. Three kinds of parameters:
 *
 *   subresources   make it another operation: see the table
 *   key parameters versionId, partNumber, response-*: the same operation, another representation, part of the cache key
 *   ignored        X-Amz-*, x-id and everything else with a value, as S3 ignores it
 *
 * A parameter that is not known and has no value is taken for a subresource younger than this table: such a read is not
 * cached and such a write drops the object. When in doubt, reads go to the origin and writes invalidate. */
#include "s3/op.h"

#include <stdlib.h>

#include "base/check.h"
#include "http/uri.h"

#define SSEC_PREFIX "x-amz-server-side-encryption-customer-"

/* ---- the query */

enum param_kind {
    PARAM_IGNORED,
    PARAM_KEY,
    PARAM_LISTING,     /* a bucket listing's own parameters */
    PARAM_SUBRESOURCE, /* of bucket or object */
    PARAM_UPLOAD_ID,
    PARAM_UPLOADS,
    PARAM_DELETE,
    PARAM_SELECT,
    PARAM_VERSIONS
};

struct param_row {
    struct str name;
    enum param_kind kind;
};

#define ROW(text, kind)                       \
    {                                         \
        {text, sizeof text - 1}, PARAM_##kind \
    }
static const struct param_row params[] = {
    ROW("versionId", KEY), ROW("partNumber", KEY), ROW("response-cache-control", KEY),
    ROW("response-content-disposition", KEY), ROW("response-content-encoding", KEY),
    ROW("response-content-language", KEY), ROW("response-content-type", KEY), ROW("response-expires", KEY),

    ROW("uploadId", UPLOAD_ID), ROW("uploads", UPLOADS), ROW("delete", DELETE), ROW("select", SELECT),
    ROW("versions", VERSIONS),

    /* of objects */
    ROW("acl", SUBRESOURCE), ROW("append", SUBRESOURCE), ROW("attributes", SUBRESOURCE), ROW("encryption", SUBRESOURCE),
    ROW("legal-hold", SUBRESOURCE), ROW("renameObject", SUBRESOURCE), ROW("restore", SUBRESOURCE),
    ROW("retention", SUBRESOURCE), ROW("tagging", SUBRESOURCE), ROW("torrent", SUBRESOURCE),
    /* of buckets */
    ROW("abac", SUBRESOURCE), ROW("accelerate", SUBRESOURCE), ROW("analytics", SUBRESOURCE), ROW("cors", SUBRESOURCE),
    ROW("intelligent-tiering", SUBRESOURCE), ROW("inventory", SUBRESOURCE), ROW("lifecycle", SUBRESOURCE),
    ROW("location", SUBRESOURCE), ROW("logging", SUBRESOURCE), ROW("metadataConfiguration", SUBRESOURCE),
    ROW("metadataInventoryTable", SUBRESOURCE), ROW("metadataJournalTable", SUBRESOURCE),
    ROW("metadataTable", SUBRESOURCE), ROW("metrics", SUBRESOURCE), ROW("notification", SUBRESOURCE),
    ROW("object-lock", SUBRESOURCE), ROW("ownershipControls", SUBRESOURCE), ROW("policy", SUBRESOURCE),
    ROW("policyStatus", SUBRESOURCE), ROW("publicAccessBlock", SUBRESOURCE), ROW("replication", SUBRESOURCE),
    ROW("requestPayment", SUBRESOURCE), ROW("session", SUBRESOURCE), ROW("versioning", SUBRESOURCE),
    ROW("website", SUBRESOURCE),

    /* of listings; here because they are often sent without a value ("prefix=") */
    ROW("bucket-region", LISTING), ROW("continuation-token", LISTING), ROW("delimiter", LISTING),
    ROW("encoding-type", LISTING), ROW("fetch-owner", LISTING), ROW("key-marker", LISTING), ROW("list-type", LISTING),
    ROW("marker", LISTING), ROW("max-buckets", LISTING), ROW("max-keys", LISTING), ROW("max-uploads", LISTING),
    ROW("prefix", LISTING), ROW("start-after", LISTING), ROW("upload-id-marker", LISTING),
    ROW("version-id-marker", LISTING), ROW("allow-unordered", LISTING), /* Ceph */
    ROW("metadata", LISTING),                                           /* MinIO */
};
#undef ROW

static bool starts_ci(struct str s, struct str prefix)
{
    return s.n >= prefix.n && str_eq_ci(str_make(s.p, prefix.n), prefix);
}

static enum param_kind param_kind_of(struct str name, struct str value)
{
    for (size_t i = 0; i < ARRAY_LEN(params); i++)
        if (str_eq(params[i].name, name)) return params[i].kind;
    /* Presigned requests carry their signature in the query; the older form has no prefix. */
    if (starts_ci(name, STR_LIT("x-amz-")) || str_eq(name, STR_LIT("x-id"))) return PARAM_IGNORED;
    /* An override of a response header that we do not know would be cached as the object's own. */
    if (str_starts(name, STR_LIT("response-"))) return PARAM_SUBRESOURCE;
    return value.n ? PARAM_IGNORED : PARAM_SUBRESOURCE;
}

struct key_param {
    struct str name, value; /* name decoded, value raw */
};

/* What the query holds, in one word each. */
struct query_facts {
    bool subresource, upload_id, uploads, delete_many, select, versions, part_number;
    bool ambiguous; /* a key parameter twice: which one counts is the origin's guess */
    struct key_param *keys;
    size_t nkeys;
};

static int key_order(const void *a, const void *b)
{
    const struct key_param *x = a, *y = b;
    size_t n = x->name.n < y->name.n ? x->name.n : y->name.n;
    int c = memcmp(x->name.p, y->name.p, n);
    return c ? c : (x->name.n > y->name.n) - (x->name.n < y->name.n);
}

static void facts_add(struct query_facts *f, struct str name, struct str value)
{
    switch (param_kind_of(name, value)) {
    case PARAM_IGNORED:
    case PARAM_LISTING: break;
    case PARAM_SUBRESOURCE: f->subresource = true; break;
    case PARAM_UPLOAD_ID: f->upload_id = true; break;
    case PARAM_UPLOADS: f->uploads = true; break;
    case PARAM_DELETE: f->delete_many = true; break;
    case PARAM_SELECT: f->select = true; break;
    case PARAM_VERSIONS: f->versions = true; break;
    case PARAM_KEY:
        if (str_eq(name, STR_LIT("partNumber"))) f->part_number = true;
        for (size_t i = 0; i < f->nkeys; i++)
            if (str_eq(f->keys[i].name, name)) f->ambiguous = true;
        /* Each name once is all that fits; the rest is ambiguous anyway. */
        if (!f->ambiguous) f->keys[f->nkeys++] = (struct key_param){name, value};
        break;
    }
}

static enum err facts_read(struct query_facts *f, struct str query, struct pool *pool)
{
    struct str rest = query, name, value;
    size_t key_names = 0;

    *f = (struct query_facts){0};
    if (query.n == 0) return ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(params); i++) key_names += params[i].kind == PARAM_KEY;
    f->keys = pool_alloc(pool, key_names * sizeof *f->keys);
    if (!f->keys) return ERR_NOMEM;
    while (query_next(&rest, &name, &value)) {
        if (name.n == 0) continue;
        if (str_find(name, '%') < name.n) {
            name = uri_decode(pool, name);
            /* Malformed: the origin may read it as anything. Out of memory looks the same and is as safe so. */
            if (!name.p) {
                f->subresource = true;
                continue;
            }
        }
        facts_add(f, name, value);
    }
    if (f->nkeys > 1) qsort(f->keys, f->nkeys, sizeof *f->keys, key_order);
    return ERR_OK;
}

static enum err key_query_build(const struct query_facts *f, struct pool *pool, struct str *out)
{
    size_t n = 0;
    *out = (struct str){NULL, 0};
    for (size_t i = 0; i < f->nkeys; i++) n += f->keys[i].name.n + f->keys[i].value.n + 2;
    if (n == 0) return ERR_OK;
    char *p = pool_alloc(pool, n), *w = p;
    if (!p) return ERR_NOMEM;
    for (size_t i = 0; i < f->nkeys; i++) {
        const struct key_param *k = &f->keys[i];
        if (i) *w++ = '&';
        memcpy(w, k->name.p, k->name.n);
        w += k->name.n;
        *w++ = '=';
        if (k->value.n) memcpy(w, k->value.p, k->value.n);
        w += k->value.n;
    }
    *out = str_make(p, (size_t)(w - p));
    return ERR_OK;
}

/* ---- the operation */

static enum s3_op service_op(enum method m)
{
    switch (m) {
    case METHOD_GET: return OP_LIST;
    case METHOD_HEAD: return OP_READ_OTHER;
    default: return OP_OTHER;
    }
}

static enum s3_op bucket_op(enum method m, const struct query_facts *f)
{
    switch (m) {
    case METHOD_GET:
        return f->subresource || f->uploads || f->upload_id || f->select || f->delete_many ? OP_READ_OTHER : OP_LIST;
    case METHOD_HEAD: return OP_READ_OTHER;
    case METHOD_POST: return f->delete_many ? OP_DELETE_MANY : OP_WRITE_BUCKET; /* else a form upload: any key */
    case METHOD_OPTIONS:
    case METHOD_TRACE:
    case METHOD_CONNECT: return OP_OTHER;
    default: return OP_WRITE_BUCKET;
    }
}

static enum s3_op object_read_op(enum method m, const struct query_facts *f)
{
    if (f->subresource || f->uploads || f->upload_id || f->select || f->delete_many || f->versions)
        return OP_READ_OTHER;
    return m == METHOD_GET ? OP_GET_OBJECT : OP_HEAD_OBJECT;
}

static enum s3_op object_post_op(const struct query_facts *f)
{
    if (f->uploads) return OP_WRITE_PART;     /* create */
    if (f->upload_id) return OP_WRITE_OBJECT; /* complete */
    return f->select ? OP_OTHER : OP_WRITE_OBJECT;
}

/* Methods we do not know may write: RFC 9111 section 4.4 has a cache drop what they were about. */
static enum s3_op object_op(enum method m, const struct query_facts *f)
{
    switch (m) {
    case METHOD_GET:
    case METHOD_HEAD: return object_read_op(m, f);
    case METHOD_POST: return object_post_op(f);
    case METHOD_PUT:
    case METHOD_DELETE: return f->upload_id ? OP_WRITE_PART : OP_WRITE_OBJECT;
    case METHOD_OPTIONS:
    case METHOD_TRACE:
    case METHOD_CONNECT: return OP_OTHER;
    default: return OP_WRITE_OBJECT;
    }
}

static bool has_sse_c(const struct head *req)
{
    for (unsigned i = 0; i < req->nhdrs; i++)
        if (req->hdrs[i].id == HDR_OTHER && starts_ci(req->hdrs[i].name, STR_LIT(SSEC_PREFIX))) return true;
    return false;
}

enum err op_classify(const struct head *req, struct str host_no_port, struct str raw_path, struct str query,
                     const char *const *base_domains, unsigned n, struct pool *pool, struct s3_request *out)
{
    struct query_facts f;

    *out = (struct s3_request){.op = OP_OTHER, .whole_object = true};
    address_from_request(host_no_port, raw_path, base_domains, n, &out->address);
    enum err e = facts_read(&f, query, pool);
    if (e) return e;
    if (!out->address.bucket.p) {
        /* "*" of OPTIONS is no service either. */
        if (raw_path.n && raw_path.p[0] == '/') out->op = service_op(req->method);
        return ERR_OK;
    }
    if (out->address.bucket.n == 0) return ERR_OK; /* "//key": no bucket has an empty name */
    if (out->address.key.n == 0) {
        out->op = bucket_op(req->method, &f);
        return ERR_OK;
    }
    out->op = object_op(req->method, &f);
    if (out->op != OP_GET_OBJECT && out->op != OP_HEAD_OBJECT) return ERR_OK;
    out->whole_object = !f.part_number;
    out->cacheable = !f.ambiguous && !has_sse_c(req);
    return key_query_build(&f, pool, &out->key_query);
}

const char *op_name(enum s3_op op)
{
    switch (op) {
    case OP_OTHER: return "OTHER";
    case OP_GET_OBJECT: return "GET";
    case OP_HEAD_OBJECT: return "HEAD";
    case OP_LIST: return "LIST";
    case OP_READ_OTHER: return "READ";
    case OP_WRITE_OBJECT: return "PUT";
    case OP_WRITE_PART: return "PART";
    case OP_DELETE_MANY: return "DELETE";
    case OP_WRITE_BUCKET: return "BUCKET";
    }
    return "OTHER";
}
