/* route.c - which route a request takes, and who may take it. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "proxy/proxy.h"

#define EXACT_HOST 1024u /* more than any "*.suffix" is long */

/* How well a pattern fits; 0: not at all. */
static size_t host_fit(const char *pattern, struct str host)
{
    struct str p = str_c(pattern);
    if (p.n > 2 && p.p[0] == '*' && p.p[1] == '.') {
        struct str tail = str_make(p.p + 1, p.n - 1);
        return host.n > tail.n && str_eq_ci(str_make(host.p + host.n - tail.n, tail.n), tail) ? p.n : 0;
    }
    return str_eq_ci(p, host) ? EXACT_HOST : 0;
}

/* 0: the route is not for this. */
static size_t route_fit(const struct route_conf *rt, struct str host, struct str path)
{
    size_t best = 0;

    if (!str_starts(path, str_c(rt->path))) return 0;
    for (unsigned i = 0; i < rt->nhosts; i++) {
        size_t fit = host_fit(rt->hosts[i], host);
        if (fit > best) best = fit;
    }
    return rt->nhosts && !best ? 0 : 1 + best + strlen(rt->path) * 2 * EXACT_HOST;
}

/* The longest path wins; of equals, the one that names the host best. */
const struct route_conf *route_find(const struct server_conf *s, struct str host, struct str path)
{
    const struct route_conf *best = NULL;
    size_t best_fit = 0;

    if (host.n && host.p[host.n - 1] == '.') host.n--; /* the root's dot */
    for (unsigned i = 0; i < s->nroutes; i++) {
        size_t fit = route_fit(&s->routes[i], host, path);
        if (fit <= best_fit) continue;
        best = &s->routes[i];
        best_fit = fit;
    }
    return best;
}

static void address_bytes(const struct address *a, unsigned char out[16])
{
    memset(out, 0, 16);
    if (a->ss.ss_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)&a->ss)->sin6_addr, 16);
    } else if (a->ss.ss_family == AF_INET) {
        out[10] = out[11] = 0xff;
        memcpy(out + 12, &((const struct sockaddr_in *)&a->ss)->sin_addr, 4);
    }
}

static bool cidr_has(const struct cidr *c, const unsigned char addr[16])
{
    unsigned whole = c->bits / 8, rest = c->bits % 8;
    if (memcmp(c->addr, addr, whole) != 0) return false;
    return rest == 0 || ((c->addr[whole] ^ addr[whole]) >> (8 - rest)) == 0;
}

bool route_allows(const struct route_conf *rt, const struct address *peer)
{
    unsigned char addr[16];

    if (rt->nallow == 0 && rt->ndeny == 0) return true;
    address_bytes(peer, addr);
    for (unsigned i = 0; i < rt->ndeny; i++)
        if (cidr_has(&rt->deny[i], addr)) return false;
    for (unsigned i = 0; i < rt->nallow; i++)
        if (cidr_has(&rt->allow[i], addr)) return true;
    return rt->nallow == 0;
}

bool route_allows_method(const struct route_conf *rt, struct str method)
{
    for (unsigned i = 0; i < rt->nmethods; i++)
        if (str_eq(method, str_c(rt->methods[i]))) return true;
    return rt->nmethods == 0;
}
