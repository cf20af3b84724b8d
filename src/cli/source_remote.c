/* source_remote.c - objects by name, by prefix, by pattern, by a list in a file. See sources.h.
 *
 * Where a path is relative to: for a prefix or pattern, behind its last '/' before the first special character; for a line of a
 * list, behind the URI that stands beside the list, else the bucket; a single object keeps its last segment. */
#include <errno.h>
#include <stdlib.h>

#include "cli/lines.h"
#include "cli/lister.h"
#include "cli/paths.h"
#include "cli/sources.h"
#include "http/date.h"

struct remote {
    struct source base;
    struct remote_source_conf c;
    int at;                /* of the URIs */
    struct lister *lister; /* of uris[at] */
    struct place place;
    struct strbuf prefix;  /* of a URI that names a directory without its slash */
    struct str pattern;    /* n == 0: everything below the prefix */
    struct str below;      /* what is listed */
    size_t skip;           /* bytes of a key that do not belong to its path */
    uint64_t given;        /* items of this URI */
    struct lines *list;
    uint64_t line_number;
    int code;
};

static struct item *make_item(struct remote *r, struct str bucket, struct str key, size_t skip)
{
    struct str rest = str_make(key.p + skip, key.n - skip);
    const char *bad = NULL;
    struct item *i;

    if (r->c.to_bucket.p) {
        if (r->c.to_exact) return item_make_copy(r->c.to_bucket, r->c.to_prefix, bucket, key);
        char *joined = malloc(r->c.to_prefix.n + rest.n + 1);
        if (!joined) return NULL;
        memcpy(joined, r->c.to_prefix.p, r->c.to_prefix.n);
        memcpy(joined + r->c.to_prefix.n, rest.p, rest.n);
        i = item_make_copy(r->c.to_bucket, str_make(joined, r->c.to_prefix.n + rest.n), bucket, key);
        free(joined);
        return i;
    }
    if (r->c.dir) bad = path_objection(rest);
    if (r->c.dir) i = item_make(bucket, key, r->c.dir, bad ? STR_LIT("") : rest);
    else i = item_make(bucket, key, NULL, str_c(r->c.file));
    if (i) i->bad = bad;
    return i;
}

/* ---- a list in a file */

static void list_more(void *arg)
{
    struct remote *r = arg;
    if (r->base.changed) r->base.changed(r->base.changed_arg);
}

static enum err list_failed(struct remote *r, int why)
{
    cli_error("%s: %s", r->c.keylist, why == EMSGSIZE ? "a line is too long" : strerror(why));
    r->code = EXIT_FAILED;
    return ERR_END;
}

/* "s3://bucket/key", or a key below the URI that stands beside the list. */
static bool place_of_line(struct remote *r, struct str line, struct place *p, struct strbuf *key, size_t *skip)
{
    struct place base = {{NULL, 0}, {NULL, 0}};

    *skip = 0;
    if (r->c.nuris) place_parse(r->c.uris[0], &base);
    if (place_is_remote(line.p)) {
        if (place_parse(line.p, p) != ERR_OK || p->key.n == 0) return false;
        if (base.key.n && str_eq(base.bucket, p->bucket) && str_starts(p->key, base.key)) *skip = path_dir(base.key).n;
        return true;
    }
    if (!base.bucket.n) return false;
    strbuf_str(key, base.key);
    if (base.key.n && base.key.p[base.key.n - 1] != '/') strbuf_ch(key, '/');
    *skip = key->n;
    strbuf_str(key, line);
    *p = (struct place){base.bucket, strbuf_get(key)};
    return !key->failed;
}

static enum err next_line(struct remote *r, struct item **out)
{
    struct str line;
    enum err e;
    int why = r->list ? 0 : lines_open(r->c.cli->net.loop, r->c.keylist, list_more, r, &r->list);

    if (why) return list_failed(r, why);
    while ((e = lines_next(r->list, &line)) == ERR_OK) {
        struct strbuf key;
        struct place p;
        size_t skip;

        r->line_number++;
        if (line.n == 0) continue;
        strbuf_init(&key, 0);
        if (place_of_line(r, line, &p, &key, &skip)) {
            *out = make_item(r, p.bucket, p.key, skip);
            strbuf_free(&key);
            return *out ? ERR_OK : ERR_NOMEM;
        }
        strbuf_free(&key);
        cli_error("%s:%llu: expected s3://BUCKET/KEY%s", r->c.keylist, (unsigned long long)r->line_number,
                  r->c.nuris ? ", or a key" : "");
        r->code = EXIT_FAILED;
    }
    return e == ERR_IO ? list_failed(r, errno) : e;
}

/* ---- a prefix or pattern */

static void lister_changed(void *arg)
{
    struct remote *r = arg;
    if (r->base.changed) r->base.changed(r->base.changed_arg);
}

static enum err begin_uri(struct remote *r)
{
    struct str prefix;

    place_parse(r->c.uris[r->at], &r->place);
    r->given = 0;
    bool glob = r->c.globs && place_has_glob(r->place.key);
    prefix = glob ? place_glob_prefix(r->place.key) : r->place.key;
    r->pattern = glob ? r->place.key : str_make(NULL, 0);
    if (!glob && prefix.n && prefix.p[prefix.n - 1] != '/') { /* run1 is not run10 */
        r->prefix.n = 0;
        strbuf_str(&r->prefix, prefix);
        strbuf_ch(&r->prefix, '/');
        if (r->prefix.failed) return ERR_NOMEM;
        prefix = strbuf_get(&r->prefix);
    }
    r->skip = path_dir(prefix).n;
    r->below = prefix;
    return lister_open(&r->c.cli->net, r->place.bucket, prefix, str_make(NULL, 0), 0, lister_changed, r,
                       &r->lister);
}

static void end_uri(struct remote *r, enum err e)
{
    if (e != ERR_END) {
        int code = cli_failed(lister_failure(r->lister), "list", r->place.bucket, r->place.key);
        if (r->code == EXIT_OK) r->code = code;
    } else if (r->given == 0) {
        cli_error("nothing is there that matches %s", r->c.uris[r->at]);
        if (r->code == EXIT_OK) r->code = EXIT_NOT_THERE;
    }
    lister_close(r->lister);
    r->lister = NULL;
    r->at++;
}

/* "dir/" that consoles put there to show a directory: no file can be made of it, and nobody misses it. */
static bool is_wanted(const struct remote *r, const struct listed *l)
{
    bool marker = l->size == 0 && l->key.n && l->key.p[l->key.n - 1] == '/';

    if (marker && r->c.dir) return false;
    /* what this run itself, or an earlier one, has put below the source: a copy of a copy of a copy... */
    if (r->c.to_bucket.p && !r->c.to_exact && r->c.to_prefix.n && str_eq(r->c.to_bucket, r->place.bucket) &&
        str_starts(r->c.to_prefix, r->below) && str_starts(l->key, r->c.to_prefix))
        return false;
    return r->pattern.n == 0 || path_match(r->pattern, l->key, r->c.recursive);
}

static int64_t seconds_of(struct str iso)
{
    int y, mo, d, h, mi, s;
    char text[40];
    char canon[17 + 32];

    snprintf(text, sizeof text, STR_FMT, STR_ARG(iso));
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d", &y, &mo, &d, &h, &mi, &s) != 6) return -1;
    snprintf(canon, sizeof canon, "%04d%02d%02dT%02d%02d%02dZ", y, mo, d, h, mi, s);
    return date_parse_amz(str_c(canon));
}

static enum err next_listed(struct remote *r, struct item **out)
{
    struct listed *l;
    enum err e;

    while ((e = lister_next(r->lister, &l)) == ERR_OK) {
        if (!is_wanted(r, l)) {
            free(l);
            continue;
        }
        *out = make_item(r, r->place.bucket, l->key, r->skip);
        if (*out) {
            (*out)->has_size = true;
            (*out)->size = l->size;
            (*out)->modified_s = seconds_of(l->modified);
        }
        r->given++;
        free(l);
        return *out ? ERR_OK : ERR_NOMEM;
    }
    return e;
}

/* ---- the source */

static bool is_listed(const struct remote *r)
{
    struct place p;

    place_parse(r->c.uris[r->at], &p);
    if (r->c.recursive || (r->c.globs && place_has_glob(p.key))) return true;
    return r->c.globs && (p.key.n == 0 || p.key.p[p.key.n - 1] == '/');
}

static enum err remote_next(struct source *s, struct item **out, int *code)
{
    struct remote *r = container_of(s, struct remote, base);
    enum err e = ERR_END;

    while (!r->c.keylist && r->at < r->c.nuris) {
        if (!is_listed(r)) {
            place_parse(r->c.uris[r->at++], &r->place);
            *out = make_item(r, r->place.bucket, r->place.key, path_dir(r->place.key).n);
            return *out ? ERR_OK : ERR_NOMEM;
        }
        if (!r->lister && (e = begin_uri(r)) != ERR_OK) break;
        e = next_listed(r, out);
        if (e == ERR_OK || e == ERR_AGAIN) return e;
        if (e == ERR_NOMEM) break;
        end_uri(r, e);
        e = ERR_END;
    }
    if (r->c.keylist) e = next_line(r, out);
    if (e == ERR_OK || e == ERR_AGAIN) return e;
    if (e != ERR_END) cli_error("%s", err_text(e));
    *code = e == ERR_END ? r->code : EXIT_FAILED;
    return e;
}

static void remote_close(struct source *s)
{
    struct remote *r = container_of(s, struct remote, base);

    lister_close(r->lister);
    lines_close(r->list);
    strbuf_free(&r->prefix);
    free(r);
}

struct source *source_remote(const struct remote_source_conf *c)
{
    struct remote *r = calloc(1, sizeof *r);

    if (!r) return NULL;
    r->base.next = remote_next;
    r->base.close = remote_close;
    r->c = *c;
    strbuf_init(&r->prefix, 0);
    return &r->base;
}
