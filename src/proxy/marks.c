/* marks.c - named points of time, each with the statistics of that moment: what happened since is a difference.
 *
 * At most limits.marks of them; the oldest makes room. A label set again is a new mark. Marks belong to the process; any
 * worker sets and reads them, under their mutex. Taking a snapshot happens outside of it. */
#include <stdlib.h>
#include <time.h>

#include "proxy/proxy.h"
#include "proxy/snapshot.h"

#define LABEL_MAX 64u

struct mark {
    struct list link;
    struct snapshot *snapshot;
    char label[LABEL_MAX + 1];
};
struct marks {
    pthread_mutex_t lock;
    struct list list; /* oldest first */
    uint64_t n, max;
};

enum err marks_create(uint64_t max, struct marks **out)
{
    struct marks *m = calloc(1, sizeof *m);
    if (!m) return ERR_NOMEM;
    pthread_mutex_init(&m->lock, NULL);
    list_init(&m->list);
    m->max = max;
    *out = m;
    return ERR_OK;
}

static void mark_free(struct mark *k)
{
    if (k) snapshot_free(k->snapshot);
    free(k);
}

static void mark_drop_locked(struct marks *m, struct mark *k)
{
    list_remove(&k->link);
    m->n--;
    mark_free(k);
}

void marks_destroy(struct marks *m)
{
    if (!m) return;
    while (!list_empty(&m->list)) mark_drop_locked(m, container_of(list_first(&m->list), struct mark, link));
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static struct mark *mark_find_locked(struct marks *m, struct str label)
{
    for (struct list *n = m->list.next; n != &m->list; n = n->next) {
        struct mark *k = container_of(n, struct mark, link);
        if (str_eq(str_c(k->label), label)) return k;
    }
    return NULL;
}

static bool label_is_valid(struct str label)
{
    if (label.n == 0 || label.n > LABEL_MAX) return false;
    for (size_t i = 0; i < label.n; i++)
        if (label.p[i] < 0x20 || label.p[i] > 0x7e) return false;
    return true;
}

static json_t *mark_json(const char *label, const struct snapshot *s)
{
    char at[40], text[48];
    time_t seconds = (time_t)(s->taken_unix_ms / 1000);
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text, sizeof text, "%s.%03dZ", at, (int)(s->taken_unix_ms % 1000));
    return json_pack("{ssss}", "label", label, "at", text);
}

static char *dump(json_t *o)
{
    char *text = o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(o);
    return text;
}

enum err mark_set(struct proxy *p, struct str label, char **json)
{
    struct mark *k = label_is_valid(label) ? calloc(1, sizeof *k) : NULL;

    if (!k) return label_is_valid(label) ? ERR_NOMEM : ERR_BAD_REQUEST;
    memcpy(k->label, label.p, label.n);
    if (stats_snapshot(p, &k->snapshot) == ERR_OK) *json = dump(mark_json(k->label, k->snapshot));
    if (!k->snapshot || !*json) {
        mark_free(k);
        return ERR_NOMEM;
    }
    struct marks *m = p->marks;
    pthread_mutex_lock(&m->lock);
    struct mark *old = mark_find_locked(m, label);
    if (old) mark_drop_locked(m, old);
    else if (m->n == m->max) mark_drop_locked(m, container_of(list_first(&m->list), struct mark, link));
    list_push_back(&m->list, &k->link);
    m->n++;
    pthread_mutex_unlock(&m->lock);
    return ERR_OK;
}

char *marks_json(struct proxy *p)
{
    json_t *all = json_array();

    pthread_mutex_lock(&p->marks->lock);
    for (struct list *n = p->marks->list.next; n != &p->marks->list; n = n->next) {
        const struct mark *k = container_of(n, struct mark, link);
        json_array_append_new(all, mark_json(k->label, k->snapshot));
    }
    pthread_mutex_unlock(&p->marks->lock);
    return dump(json_pack("{so}", "marks", all));
}

char *stats_json(struct proxy *p)
{
    struct snapshot *s;
    if (stats_snapshot(p, &s) != ERR_OK) return NULL;
    json_t *o = snapshot_render(s);
    snapshot_free(s);
    return dump(o);
}

enum err stats_since_json(struct proxy *p, struct str label, char **json)
{
    struct snapshot *now;
    json_t *since = NULL;

    if (stats_snapshot(p, &now) != ERR_OK) return ERR_NOMEM;
    pthread_mutex_lock(&p->marks->lock);
    struct mark *k = mark_find_locked(p->marks, label);
    if (k) {
        uint64_t ms = now->taken_ms > k->snapshot->taken_ms ? now->taken_ms - k->snapshot->taken_ms : 0;
        snapshot_subtract(now, k->snapshot);
        since = mark_json(k->label, k->snapshot);
        json_object_set_new(since, "seconds", json_real((double)ms / 1000.0));
    }
    pthread_mutex_unlock(&p->marks->lock);
    json_t *o = k ? snapshot_render(now) : NULL;
    json_object_set_new(o, "since", since);
    snapshot_free(now);
    *json = dump(o);
    return *json ? ERR_OK : k ? ERR_NOMEM : ERR_NOT_FOUND;
}
