/* rules.c - the rules across values.
 *
 * A struct in which a value was refused is left out: it holds defaults where the file meant something else, and what
 * would be said about them could be wrong. */
#include "conf/rules.h"

#include <netinet/in.h>

#include "base/units.h"

#define CACHE_SLICES_MIN 16

static const char *size_text(uint64_t bytes, char *buf, size_t n) { return units_format_size(bytes, buf, n); }

static void check_cache(struct decoder *d, const struct decoded *r)
{
    const struct cache_conf *c = r->item;
    char memory[32], least[32];
    if (c->pinned_bytes > c->memory_bytes / 4 * 3)
        decoded_error(d, r, "pinned", "memory", "more than three quarters of memory, expected at most %s",
                      size_text(c->memory_bytes / 4 * 3, memory, sizeof memory));
    if (c->memory_bytes / c->slice_bytes >= CACHE_SLICES_MIN) return;
    decoded_error(d, r, "memory", "slice_size", "%s is too little, expected at least %d slices (%s)",
                  size_text(c->memory_bytes, memory, sizeof memory), CACHE_SLICES_MIN,
                  size_text(c->slice_bytes * CACHE_SLICES_MIN, least, sizeof least));
}

/* ---- origins */

static void check_credential(struct decoder *d, const struct decoded *r, const char *row, const char *value,
                             bool wanted, bool allowed, const char *sources)
{
    if (wanted && !value)
        decoded_error(d, r, row, "credentials.source", "missing, expected with credentials.source static");
    if (!allowed && value)
        decoded_error(d, r, row, NULL, "has no effect here, expected only with credentials.source %s", sources);
}

static void check_credentials(struct decoder *d, const struct decoded *r)
{
    const struct creds_conf *c = &((const struct origin_conf *)r->item)->creds;
    bool is_static = c->source == CREDS_STATIC;
    bool is_file = c->source == CREDS_AUTO || c->source == CREDS_PROFILE;
    check_credential(d, r, "credentials.access_key", c->access_key, is_static, is_static, "static");
    check_credential(d, r, "credentials.secret_key", c->secret_key, is_static, is_static, "static");
    check_credential(d, r, "credentials.session_token", c->session_token, false, is_static, "static");
    check_credential(d, r, "credentials.profile", c->profile, false, is_file, "auto or profile");
    check_credential(d, r, "credentials.file", c->file, false, is_file, "auto or profile");
}

static void check_origin(struct decoder *d, const struct decoded *r)
{
    const struct origin_conf *o = r->item;
    char ahead[32], part[32];

    check_credentials(d, r);
    if (o->retry_base_ms > o->retry_cap_ms)
        decoded_error(d, r, "retry.base", "retry.cap", "longer than retry.cap, expected at most as long");
    if (o->read_ahead_bytes < o->part_bytes)
        decoded_error(d, r, "fetch.read_ahead", "fetch.part_size", "%s is less than one part, expected at least %s",
                      size_text(o->read_ahead_bytes, ahead, sizeof ahead), size_text(o->part_bytes, part, sizeof part));
}

/* A part is made of whole slices of every cache it may go to. Slices are powers of two: the largest decides. */
static void round_part_sizes(struct conf *c)
{
    for (unsigned s = 0; s < c->nservers; s++) {
        for (unsigned i = 0; i < c->servers[s].nroutes; i++) {
            const struct route_conf *route = &c->servers[s].routes[i];
            if (route->origin < 0 || route->cache < 0) continue;
            uint64_t slice = c->caches[route->cache].slice_bytes;
            struct origin_conf *o = &c->origins[route->origin];
            o->part_bytes = (o->part_bytes + slice - 1) / slice * slice;
        }
    }
}

/* ---- servers */

static bool address_same(const struct address *a, const struct address *b)
{
    if (a->ss.ss_family != b->ss.ss_family) return false;
    if (a->ss.ss_family == AF_INET) {
        const struct sockaddr_in *x = (const void *)&a->ss, *y = (const void *)&b->ss;
        return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    const struct sockaddr_in6 *x = (const void *)&a->ss, *y = (const void *)&b->ss;
    return x->sin6_port == y->sin6_port && x->sin6_scope_id == y->sin6_scope_id &&
           memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr) == 0;
}

static bool port_is_zero(const struct address *a)
{
    if (a->ss.ss_family == AF_INET) return ((const struct sockaddr_in *)(const void *)&a->ss)->sin_port == 0;
    return ((const struct sockaddr_in6 *)(const void *)&a->ss)->sin6_port == 0;
}

/* The records run from the file's end to its begin: what follows in the chain stood before. */
static const struct decoded *listen_before(const struct decoded *r)
{
    const struct listen_conf *l = r->item;
    for (const struct decoded *at = r->next; at; at = at->next) {
        if (at->scope != r->scope || at->failed) continue;
        const struct listen_conf *o = at->item;
        if (address_same(&l->address, &o->address)) return at;
    }
    return NULL;
}

static void check_listen(struct decoder *d, const struct decoded *r)
{
    const struct listen_conf *l = r->item;
    if (port_is_zero(&l->address)) return; /* each gets a port of its own */
    const struct decoded *before = listen_before(r);
    if (before)
        decoded_error(d, r, "address", NULL, "duplicate address '%.64s', expected it once (first in line %u)", l->text,
                      before->node->line);
}

static void check_tls(struct decoder *d, const struct decoded *r)
{
    const struct listen_tls_conf *t = r->item;
    if (!t->certificate && !t->ncertificates)
        decoded_error(d, r, "certificate", "certificates", "missing, expected a PEM file, or certificates");
    if (t->key && !t->certificate)
        decoded_error(d, r, "key", NULL, "without a certificate, expected certificate beside it");
    if (t->verify != TLS_VERIFY_OFF && !t->client_ca)
        decoded_error(d, r, "client_ca", "verify", "missing, expected a PEM file with verify");
    if (t->verify == TLS_VERIFY_OFF && t->client_ca)
        decoded_error(d, r, "client_ca", NULL, "has no effect here, expected only with verify optional or required");
    if (t->tls13_only && t->ciphers)
        decoded_error(d, r, "ciphers", NULL, "has no effect with min_version 1.3, expected ciphersuites");
    if (t->nalpn == 2 && t->alpn[0] == t->alpn[1])
        decoded_error(d, r, "alpn", NULL, "the same twice, expected each once");
}

static bool hosts_overlap(const struct route_conf *a, const struct route_conf *b)
{
    if (!a->nhosts || !b->nhosts) return a->nhosts == b->nhosts;
    for (unsigned i = 0; i < a->nhosts; i++)
        for (unsigned k = 0; k < b->nhosts; k++)
            if (a->hosts[i] && b->hosts[k] && strcmp(a->hosts[i], b->hosts[k]) == 0) return true;
    return false;
}

static void check_protocols(struct decoder *d, const struct server_conf *s)
{
    for (unsigned i = 0; i < s->nlistens && !s->http2.enabled; i++) {
        const struct listen_tls_conf *t = s->listens[i].tls;
        for (unsigned k = 0; t && k < t->nalpn; k++) {
            const struct decoded *r = decoded_find(d, t);
            if (t->alpn[k] == PROTOCOL_H2 && r && !r->failed)
                decoded_error(d, r, "alpn", NULL, "h2 without http2.enabled, expected http/1.1 alone");
        }
    }
}

static void check_server(struct decoder *d, const struct decoded *r)
{
    const struct server_conf *s = r->item;
    check_protocols(d, s);
    for (unsigned i = 1; i < s->nroutes; i++) {
        for (unsigned k = 0; k < i; k++) {
            const struct route_conf *a = &s->routes[i], *b = &s->routes[k];
            if (!a->path || !b->path || strcmp(a->path, b->path) != 0 || !hosts_overlap(a, b)) continue;
            const struct decoded *ra = decoded_find(d, a), *rb = decoded_find(d, b);
            if (!ra || !rb || ra->failed || rb->failed) continue;
            decoded_error(d, ra, "path", NULL,
                          "duplicate route for '%.64s', expected one for a path and host (first in line %u)", a->path,
                          rb->node->line);
            break;
        }
    }
}

static void check_route(struct decoder *d, const struct decoded *r)
{
    const struct route_conf *route = r->item;
    bool handler = route->handler != NULL, origin = route->origin >= 0;
    if (handler && origin)
        decoded_error(d, r, "handler", NULL, "beside an origin, expected exactly one of origin and handler");
    else if (!handler && !origin)
        decoded_error(d, r, "origin", NULL, "missing, expected exactly one of origin and handler");
    if (origin || !handler) return;
    if (route->cache >= 0)
        decoded_error(d, r, "cache", NULL, "has no effect with a handler, expected only with an origin");
    if (route->nbase_domains)
        decoded_error(d, r, "base_domains", NULL, "has no effect with a handler, expected only with an origin");
}

static void note_handler(const struct decoded *r)
{
    struct route_conf *route = (struct route_conf *)(uintptr_t)r->item;
    const struct yaml_node *at = decoded_given(r, "handler");
    if (!at) return;
    route->handler_line = at->line;
    route->handler_column = at->column;
}

/* ---- the top level */

static void check_top(struct decoder *d, const struct decoded *r)
{
    const struct conf *c = r->item;
    char text[32];
    if (c->target_bytes > c->head_bytes)
        decoded_error(d, r, "limits.target_size", "limits.head_size",
                      "larger than limits.head_size, expected at most %s", size_text(c->head_bytes, text, sizeof text));
    if (c->request_memory_bytes / 2 < c->head_bytes)
        decoded_error(d, r, "limits.request_memory", "limits.head_size",
                      "too little for two heads, expected at least %s",
                      size_text(c->head_bytes * 2, text, sizeof text));
}

void rules_check(struct decoder *d)
{
    static const struct {
        const char *scope;
        void (*check)(struct decoder *d, const struct decoded *r);
    } checks[] = {{"", check_top},          {"cache", check_cache},   {"origin", check_origin},
                  {"server", check_server}, {"listen", check_listen}, {"route", check_route},
                  {"tls", check_tls}};

    round_part_sizes(d->conf);
    for (const struct decoded *r = d->all; r; r = r->next) {
        if (strcmp(r->scope->name, "route") == 0) note_handler(r);
        for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++)
            if (!r->failed && strcmp(checks[i].scope, r->scope->name) == 0) checks[i].check(d, r);
    }
}
