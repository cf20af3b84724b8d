/* snapshot.c - see the header. */
#include "proxy/snapshot.h"

#include <stdlib.h>

enum err snapshot_create(unsigned cap_hists, struct snapshot **out)
{
    struct snapshot *s = calloc(1, sizeof *s);
    if (s) s->tree = json_object();
    if (s) s->hists = calloc(cap_hists ? cap_hists : 1, sizeof *s->hists);
    if (!s || !s->tree || !s->hists) {
        snapshot_free(s);
        return ERR_NOMEM;
    }
    s->cap_hists = cap_hists;
    *out = s;
    return ERR_OK;
}

void snapshot_free(struct snapshot *s)
{
    if (!s) return;
    json_decref(s->tree);
    free(s->hists);
    free(s);
}

/* ---- building */

void snapshot_count(json_t *o, const char *name, uint64_t v) { json_object_set_new(o, name, json_integer((json_int_t)v)); }

void snapshot_gauge(json_t *o, const char *name, json_t *v) { json_object_set_new(o, name, json_pack("[o]", v)); }

void snapshot_level(json_t *o, const char *name, uint64_t v) { snapshot_gauge(o, name, json_integer((json_int_t)v)); }

void snapshot_ratio(json_t *o, const char *name, uint64_t part, uint64_t whole)
{
    json_object_set_new(o, name, json_pack("{s[II]}", "$ratio", (json_int_t)part, (json_int_t)whole));
}

struct hist_sum *snapshot_hist(struct snapshot *s, json_t *o, const char *name, double unit)
{
    if (s->nhists == s->cap_hists) return NULL;
    json_object_set_new(o, name, json_pack("{sisf}", "$hist", (int)s->nhists, "$unit", unit));
    return &s->hists[s->nhists++];
}

/* ---- reading */

enum leaf snapshot_leaf(const json_t *v)
{
    if (json_is_integer(v)) return LEAF_COUNT;
    if (json_is_array(v)) return LEAF_GAUGE;
    if (json_is_array(json_object_get(v, "$ratio"))) return LEAF_RATIO;
    if (json_is_integer(json_object_get(v, "$hist"))) return LEAF_HIST;
    return LEAF_NONE;
}

const struct hist_sum *snapshot_hist_of(const struct snapshot *s, const json_t *leaf)
{
    json_int_t i = json_integer_value(json_object_get(leaf, "$hist"));
    return i >= 0 && i < (json_int_t)s->nhists ? &s->hists[i] : NULL;
}

static void integer_subtract(json_t *now, const json_t *then)
{
    json_int_t a = json_integer_value(now), b = json_integer_value(then);
    json_integer_set(now, a > b ? a - b : 0);
}

static void ratio_subtract(json_t *now, const json_t *then)
{
    json_t *a = json_object_get(now, "$ratio");
    const json_t *b = json_object_get(then, "$ratio");
    for (size_t i = 0; i < 2; i++) integer_subtract(json_array_get(a, i), json_array_get(b, i));
}

/* What was not there before stays whole. */
static void tree_subtract(struct snapshot *now, json_t *a, const struct snapshot *then, const json_t *b)
{
    const char *name;
    json_t *v;

    json_object_foreach(a, name, v)
    {
        const json_t *was = json_object_get(b, name);
        if (!was || snapshot_leaf(was) != snapshot_leaf(v)) continue;
        switch (snapshot_leaf(v)) {
        case LEAF_COUNT: integer_subtract(v, was); break;
        case LEAF_RATIO: ratio_subtract(v, was); break;
        case LEAF_HIST: {
            const struct hist_sum *h = snapshot_hist_of(now, v), *old = snapshot_hist_of(then, was);
            if (h && old) hist_subtract(&now->hists[h - now->hists], old);
            break;
        }
        case LEAF_NONE: tree_subtract(now, v, then, was); break;
        case LEAF_GAUGE: break;
        }
    }
}

void snapshot_subtract(struct snapshot *now, const struct snapshot *then)
{
    tree_subtract(now, now->tree, then, then->tree);
}

static json_t *render_hist(const struct hist_sum *h, double unit)
{
    static const struct {
        const char *name;
        double q;
    } qs[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p999", .999}};
    json_t *o = json_object();
    for (size_t i = 0; h && i < sizeof qs / sizeof qs[0]; i++)
        json_object_set_new(o, qs[i].name, json_real((double)hist_quantile(h, qs[i].q) / unit));
    if (h) json_object_set_new(o, "max", json_real((double)h->max / unit));
    return o;
}

static json_t *render_ratio(const json_t *v)
{
    const json_t *r = json_object_get(v, "$ratio");
    double part = (double)json_integer_value(json_array_get(r, 0)), whole = (double)json_integer_value(json_array_get(r, 1));
    return json_real(whole > 0 ? part / whole : 0.0);
}

static json_t *render(const struct snapshot *s, const json_t *tree)
{
    json_t *o = json_object();
    const char *name;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)tree, name, v)
    {
        json_t *shown = NULL;
        switch (snapshot_leaf(v)) {
        case LEAF_COUNT: shown = json_incref(v); break;
        case LEAF_GAUGE: shown = json_incref(json_array_get(v, 0)); break;
        case LEAF_RATIO: shown = render_ratio(v); break;
        case LEAF_HIST: shown = render_hist(snapshot_hist_of(s, v), json_number_value(json_object_get(v, "$unit"))); break;
        case LEAF_NONE: shown = render(s, v); break;
        }
        json_object_set_new(o, name, shown);
    }
    return o;
}

json_t *snapshot_render(const struct snapshot *s) { return render(s, s->tree); }
