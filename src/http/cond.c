/* cond.c - preconditions of GET and HEAD.
 *
 * Entity tags are compared as RFC 9110 8.8.3.2 says. One leniency, which S3 and its clients live by: a tag sent without
 * its quotes in If-Match or If-None-Match means the same tag with them. */
#include "http/cond.h"

#include "http/date.h"

/* The part between the quotes; false when it is no well-formed entity tag. */
static bool tag_parse(struct str e, bool *weak, struct str *opaque)
{
    *weak = e.n >= 2 && e.p[0] == 'W' && e.p[1] == '/';
    if (*weak) e = str_make(e.p + 2, e.n - 2);
    if (e.n < 2 || e.p[0] != '"' || e.p[e.n - 1] != '"') return false;
    for (size_t i = 1; i < e.n - 1; i++) {
        unsigned char c = (unsigned char)e.p[i];
        if (c <= 0x20 || c == '"' || c == 0x7f) return false;
    }
    *opaque = str_make(e.p + 1, e.n - 2);
    return true;
}

bool etag_is_strong(struct str e)
{
    bool weak;
    struct str opaque;
    return tag_parse(e, &weak, &opaque) && !weak;
}

bool etag_strong_eq(struct str a, struct str b) { return etag_is_strong(a) && str_eq(a, b); }

bool etag_weak_eq(struct str a, struct str b)
{
    bool weak;
    struct str oa, ob;
    return tag_parse(a, &weak, &oa) && tag_parse(b, &weak, &ob) && str_eq(oa, ob);
}

/* Like tag_parse, but a text without any quote is taken for the opaque part itself. */
static bool tag_parse_lenient(struct str e, bool *weak, struct str *opaque)
{
    if (tag_parse(e, weak, opaque)) return true;
    *opaque = e;
    return e.n > 0 && !*weak && str_find(e, '"') == e.n;
}

/* Next member of a list of tags. Not hdr_list_next: a backslash escapes nothing in an entity tag. */
static bool tag_next(struct str *rest, struct str *tag)
{
    while (rest->n > 0) {
        struct str s = str_trim(*rest);
        size_t at = 0;
        if (s.n >= 2 && s.p[0] == 'W' && s.p[1] == '/') at = 2;
        if (at < s.n && s.p[at] == '"') {
            const char *close = memchr(s.p + at + 1, '"', s.n - at - 1);
            at = close ? (size_t)(close - s.p) + 1 : s.n;
        }
        while (at < s.n && s.p[at] != ',') at++;
        *tag = str_trim(str_make(s.p, at));
        *rest = at < s.n ? str_make(s.p + at + 1, s.n - at - 1) : (struct str){NULL, 0};
        if (tag->n > 0) return true;
    }
    return false;
}

/* Does any field `id` list the tag, or "*"? */
static bool tags_match(const struct head *req, enum hdr_id id, struct str etag, bool strong)
{
    bool mine_weak = false, weak;
    struct str mine = {NULL, 0}, theirs, tag;
    bool have = etag.n > 0 && tag_parse_lenient(etag, &mine_weak, &mine);
    for (unsigned i = 0; i < req->nhdrs; i++) {
        if (req->hdrs[i].id != id) continue;
        if (str_eq(req->hdrs[i].value, STR_LIT("*"))) return true;
        struct str rest = req->hdrs[i].value;
        while (have && tag_next(&rest, &tag)) {
            if (!tag_parse_lenient(tag, &weak, &theirs)) continue;
            if (strong && (weak || mine_weak)) continue;
            if (str_eq(theirs, mine)) return true;
        }
    }
    return false;
}

/* The date in the only field `id`; -1 when there is none, several, or it is no date: such a condition is ignored. */
static int64_t only_date(const struct head *req, enum hdr_id id)
{
    const struct hdr *found = NULL;
    for (unsigned i = 0; i < req->nhdrs; i++) {
        if (req->hdrs[i].id != id) continue;
        if (found) return -1;
        found = &req->hdrs[i];
    }
    return found ? date_parse(found->value) : -1;
}

bool cond_any(const struct head *req)
{
    for (unsigned i = 0; i < req->nhdrs; i++) {
        switch (req->hdrs[i].id) {
        case HDR_IF_MATCH:
        case HDR_IF_NONE_MATCH:
        case HDR_IF_MODIFIED_SINCE:
        case HDR_IF_UNMODIFIED_SINCE: return true;
        default: break;
        }
    }
    return false;
}

/* RFC 9110 13.2.2: the tag conditions come first and put the date conditions out of force. */
enum cond_result cond_check(const struct head *req, struct str etag, int64_t last_modified_s)
{
    if (head_find(req, HDR_IF_MATCH)) {
        if (!tags_match(req, HDR_IF_MATCH, etag, true)) return COND_FAILED;
    } else if (last_modified_s >= 0) {
        int64_t since = only_date(req, HDR_IF_UNMODIFIED_SINCE);
        if (since >= 0 && last_modified_s > since) return COND_FAILED;
    }
    if (head_find(req, HDR_IF_NONE_MATCH)) {
        if (tags_match(req, HDR_IF_NONE_MATCH, etag, false)) return COND_NOT_MODIFIED;
    } else if (last_modified_s >= 0) {
        int64_t since = only_date(req, HDR_IF_MODIFIED_SINCE);
        if (since >= 0 && last_modified_s <= since) return COND_NOT_MODIFIED;
    }
    return COND_PASS;
}

bool cond_if_range(const struct head *req, struct str etag, int64_t last_modified_s)
{
    const struct hdr *found = NULL;
    for (unsigned i = 0; i < req->nhdrs; i++) {
        if (req->hdrs[i].id != HDR_IF_RANGE) continue;
        if (found) return false; /* which of them did the client mean? The whole object is never wrong. */
        found = &req->hdrs[i];
    }
    if (!found) return true;
    if (str_find(found->value, '"') < found->value.n) return etag_strong_eq(found->value, etag);
    int64_t date = date_parse(found->value);
    return date >= 0 && date == last_modified_s;
}
