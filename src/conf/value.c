/* value.c - reading and writing the kinds of values.
 *
 * Fields are reached through `void *` and copied with memcpy: a `const char *` and a `char *`, or two enums, are different
 * types to the compiler, but the same kind of value to a table. */
#include "conf/value.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/units.h"
#include "conf/cpus.h"
#include "conf/directive.h"

_Static_assert(sizeof(enum origin_type) == sizeof(int) && sizeof(enum route_auth) == sizeof(int) && sizeof(enum cache_header) == sizeof(int) &&
                   sizeof(enum log_format) == sizeof(int) && sizeof(enum log_level) == sizeof(int) &&
                   sizeof(enum creds_source) == sizeof(int) && sizeof(enum origin_http2) == sizeof(int) &&
                   sizeof(enum listen_protocol) == sizeof(int) && sizeof(enum tls_verify) == sizeof(int),
               "value_word writes an int");

#define STRING_MAX_BYTES 4096

/* ---- numbers */

static enum err store_number(const struct directive *row, struct str text, uint64_t v, void *field, char *why, size_t n)
{
    char bounds[128];
    bool power = v && !(v & (v - 1));
    if (v < row->min || v > row->max || (row->power_of_two && !power)) {
        snprintf(why, n, "'%.40s' is out of range, expected %s", text.p, row_bounds(row, bounds, sizeof bounds));
        return ERR_CONFIG;
    }
    memcpy(field, &v, sizeof v);
    return ERR_OK;
}

static uint64_t load_number(const void *field)
{
    uint64_t v;
    memcpy(&v, field, sizeof v);
    return v;
}

static enum err count_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                            size_t n)
{
    uint64_t v;
    (void)c;
    if (!str_to_u64(text, &v)) return ERR_CONFIG;
    return store_number(row, text, v, field, why, n);
}

static bool count_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    (void)c, (void)row;
    strbuf_u64(out, load_number(field));
    return true;
}

static enum err size_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                           size_t n)
{
    uint64_t v;
    (void)c;
    if (units_parse_size(text, &v)) return ERR_CONFIG;
    return store_number(row, text, v, field, why, n);
}

static bool size_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    char buf[32];
    (void)c, (void)row;
    strbuf_z(out, units_format_size(load_number(field), buf, sizeof buf));
    return true;
}

static enum err duration_parse(const struct conf *c, const struct directive *row, struct str text, void *field,
                               char *why, size_t n)
{
    uint64_t v;
    (void)c;
    if (units_parse_duration(text, &v)) return ERR_CONFIG;
    return store_number(row, text, v, field, why, n);
}

static bool duration_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    char buf[32];
    (void)c, (void)row;
    strbuf_z(out, units_format_duration(load_number(field), buf, sizeof buf));
    return true;
}

static enum err workers_parse(const struct conf *c, const struct directive *row, struct str text, void *field,
                              char *why, size_t n)
{
    uint64_t v;
    unsigned workers;
    enum err e = ERR_OK;
    if (str_eq(text, STR_LIT("auto"))) {
        workers = cpus_available("");
        if (workers > row->max) workers = (unsigned)row->max;
    } else {
        e = count_parse(c, row, text, &v, why, n);
        workers = e ? 0 : (unsigned)v;
    }
    if (!e) memcpy(field, &workers, sizeof workers);
    return e;
}

static bool workers_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    unsigned workers;
    (void)c, (void)row;
    memcpy(&workers, field, sizeof workers);
    strbuf_u64(out, workers);
    return true;
}

/* ---- words */

struct str words_at(const char *words, unsigned i)
{
    struct str rest = str_c(words), word = {NULL, 0};
    for (unsigned at = 0; str_split(&rest, ' ', &word); at++)
        if (at == i) return word;
    return str_make(NULL, 0);
}

int words_find(const char *words, struct str word)
{
    struct str one;
    for (unsigned i = 0; (one = words_at(words, i)).p; i++)
        if (str_eq(one, word)) return (int)i;
    return -1;
}

static enum err bool_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                           size_t n)
{
    (void)c, (void)row, (void)why, (void)n;
    int word = words_find("false no off true yes on", text);
    if (word < 0) return ERR_CONFIG;
    bool v = word >= 3;
    memcpy(field, &v, sizeof v);
    return ERR_OK;
}

static bool bool_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    bool v;
    (void)c, (void)row;
    memcpy(&v, field, sizeof v);
    strbuf_z(out, v ? "true" : "false");
    return true;
}

static enum err words_unknown(const struct directive *row, struct str text, char *why, size_t n)
{
    char bounds[128];
    snprintf(why, n, "'%.40s' is not known, expected %s", text.p, row_bounds(row, bounds, sizeof bounds));
    return ERR_CONFIG;
}

static enum err word_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                           size_t n)
{
    (void)c;
    int word = words_find(row->words, text);
    if (word < 0) return words_unknown(row, text, why, n);
    memcpy(field, &word, sizeof word);
    return ERR_OK;
}

static bool word_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    int word;
    (void)c;
    memcpy(&word, field, sizeof word);
    strbuf_str(out, words_at(row->words, (unsigned)word));
    return true;
}

static enum err flag_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                           size_t n)
{
    (void)c;
    int word = words_find(row->words, text);
    if (word < 0) return words_unknown(row, text, why, n);
    bool v = word == 1;
    memcpy(field, &v, sizeof v);
    return ERR_OK;
}

static bool flag_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    bool v;
    (void)c;
    memcpy(&v, field, sizeof v);
    strbuf_str(out, words_at(row->words, v));
    return true;
}

static enum err fixed_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                            size_t n)
{
    (void)c, (void)field;
    return words_find(row->words, text) < 0 ? words_unknown(row, text, why, n) : ERR_OK;
}

static bool fixed_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    (void)c, (void)field;
    strbuf_str(out, words_at(row->words, 0));
    return true;
}

static enum err later_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                            size_t n)
{
    (void)c, (void)row, (void)text, (void)field;
    snprintf(why, n, "not supported yet");
    return ERR_CONFIG;
}

static bool later_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    (void)c, (void)row, (void)field, (void)out;
    return false;
}

/* ---- strings */

static void pointer_clear(void *field)
{
    void *p;
    memcpy(&p, field, sizeof p);
    free(p);
    p = NULL;
    memcpy(field, &p, sizeof p);
}

static enum err pointer_set(void *field, struct str text, bool lower)
{
    char *p = str_dup(text);
    if (!p) return ERR_NOMEM;
    for (char *at = p; lower && *at; at++)
        if (*at >= 'A' && *at <= 'Z') *at = (char)(*at | 0x20);
    pointer_clear(field);
    memcpy(field, &p, sizeof p);
    return ERR_OK;
}

static bool string_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    const char *p;
    (void)c, (void)row;
    memcpy(&p, field, sizeof p);
    if (!p) return false;
    strbuf_z(out, p);
    return true;
}

static enum err string_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                             size_t n)
{
    (void)c;
    uint64_t max = row->max ? row->max : STRING_MAX_BYTES;
    if (text.n < row->min || text.n > max) {
        snprintf(why, n, "%zu bytes long, expected %llu to %llu", text.n, (unsigned long long)(row->min ? row->min : 1),
                 (unsigned long long)max);
        return ERR_CONFIG;
    }
    return pointer_set(field, text, false);
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

bool name_valid(struct str s)
{
    if (s.n == 0 || s.n > 64) return false;
    for (size_t i = 0; i < s.n; i++)
        if (!name_char(s.p[i]) && s.p[i] != '.') return false;
    return true;
}

static enum err name_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                           size_t n)
{
    (void)c, (void)row, (void)why, (void)n;
    return name_valid(text) ? pointer_set(field, text, false) : ERR_CONFIG;
}

static enum err path_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                           size_t n)
{
    (void)c, (void)row, (void)why, (void)n;
    if (text.p[0] != '/' || text.n > STRING_MAX_BYTES) return ERR_CONFIG;
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] <= ' ' || text.p[i] >= 0x7f || text.p[i] == '?' || text.p[i] == '#') return ERR_CONFIG;
    return pointer_set(field, text, false);
}

/* Labels of letters, digits, - and _ between dots; no port. */
static bool domain_valid(struct str s)
{
    struct str label;
    if (s.n == 0 || s.n > 253) return false;
    while (str_split(&s, '.', &label)) {
        if (label.n == 0 || label.n > 63) return false;
        for (size_t i = 0; i < label.n; i++)
            if (!name_char(label.p[i])) return false;
    }
    return true;
}

static bool ipv6_literal_valid(struct str s)
{
    char text[INET6_ADDRSTRLEN];
    unsigned char addr[16];
    if (s.n < 4 || s.n - 2 >= sizeof text || s.p[0] != '[' || s.p[s.n - 1] != ']') return false;
    memcpy(text, s.p + 1, s.n - 2);
    text[s.n - 2] = '\0';
    return inet_pton(AF_INET6, text, addr) == 1;
}

static enum err host_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                           size_t n)
{
    (void)c, (void)row, (void)why, (void)n;
    struct str name = text;
    if (str_starts(name, STR_LIT("*."))) name = str_make(name.p + 2, name.n - 2);
    if (!domain_valid(name) && !ipv6_literal_valid(text)) return ERR_CONFIG;
    return pointer_set(field, text, true);
}

static enum err domain_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                             size_t n)
{
    (void)c, (void)row, (void)why, (void)n;
    return domain_valid(text) ? pointer_set(field, text, true) : ERR_CONFIG;
}

static enum err authority_value_parse(const struct conf *c, const struct directive *row, struct str text, void *field,
                                      char *why, size_t n)
{
    struct str host;
    unsigned port;
    (void)c, (void)row, (void)why, (void)n;
    return authority_parse(text, &host, &port) ? pointer_set(field, text, false) : ERR_CONFIG;
}

static enum err method_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                             size_t n)
{
    (void)c, (void)row, (void)why, (void)n;
    if (text.n > 32) return ERR_CONFIG;
    for (size_t i = 0; i < text.n; i++)
        if (!(text.p[i] >= 'A' && text.p[i] <= 'Z') && text.p[i] != '-') return ERR_CONFIG;
    return pointer_set(field, text, false);
}

/* ---- addresses */

static enum err endpoint_value_parse(const struct conf *c, const struct directive *row, struct str text, void *field,
                                     char *why, size_t n)
{
    struct endpoint ep;
    (void)c, (void)row;
    enum err e = endpoint_parse(text, &ep);
    /* What stands before an @ may be a password: such an endpoint is not repeated. */
    if (e && str_find(text, '@') < text.n)
        snprintf(why, n, "an endpoint with a user name, expected a URL such as https://host:port without one");
    if (e) return e == ERR_NOMEM ? e : ERR_CONFIG;
    memcpy(field, &ep, sizeof ep);
    return ERR_OK;
}

static bool endpoint_value_format(const struct conf *c, const struct directive *row, const void *field,
                                  struct strbuf *out)
{
    const struct endpoint *ep = field;
    (void)c, (void)row;
    if (!ep->host[0]) return false;
    bool bare_ipv6 = strchr(ep->host, ':') && ep->host[0] != '[';
    strbuf_z(out, ep->https ? "https://" : "http://");
    strbuf_f(out, bare_ipv6 ? "[%s]" : "%s", ep->host);
    if (ep->port && ep->port != (ep->https ? 443u : 80u)) strbuf_f(out, ":%u", ep->port);
    strbuf_z(out, ep->prefix);
    return true;
}

static bool bits_clear_behind(const unsigned char *addr, unsigned bits)
{
    for (unsigned i = bits; i < 128; i++)
        if (addr[i / 8] & (0x80u >> i % 8)) return false;
    return true;
}

static enum err cidr_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                           size_t n)
{
    struct cidr v = {.bits = 128};
    char z[INET6_ADDRSTRLEN];
    struct str bits = text, addr = text;
    uint64_t given;
    (void)c, (void)row;

    str_split(&bits, '/', &addr);
    if (addr.n >= sizeof z) return ERR_CONFIG;
    memcpy(z, addr.p, addr.n);
    z[addr.n] = '\0';
    bool v4 = inet_pton(AF_INET, z, v.addr + 12) == 1;
    if (v4)
        v.addr[10] = v.addr[11] = 0xff;
    else if (inet_pton(AF_INET6, z, v.addr) != 1)
        return ERR_CONFIG;
    if (bits.p) {
        if (!str_to_u64(bits, &given) || given > (v4 ? 32 : 128)) return ERR_CONFIG;
        v.bits = (unsigned)given + (v4 ? 96 : 0);
    }
    if (!bits_clear_behind(v.addr, v.bits)) {
        snprintf(why, n, "'%.50s' has bits set behind its prefix, expected a network such as 10.0.0.0/8", text.p);
        return ERR_CONFIG;
    }
    memcpy(field, &v, sizeof v);
    return ERR_OK;
}

static bool cidr_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    static const unsigned char v4_mapped[12] = {[10] = 0xff, [11] = 0xff};
    const struct cidr *v = field;
    char text[INET6_ADDRSTRLEN];
    (void)c, (void)row;
    bool v4 = v->bits >= 96 && memcmp(v->addr, v4_mapped, sizeof v4_mapped) == 0;
    if (!inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? v->addr + 12 : v->addr, text, sizeof text)) return false;
    strbuf_f(out, "%s/%u", text, v4 ? v->bits - 96 : v->bits);
    return true;
}

static enum err address_value_parse(const struct conf *c, const struct directive *row, struct str text, void *field,
                                    char *why, size_t n)
{
    struct listen_conf *l = field;
    struct address a;
    (void)c, (void)row;
    enum err e = address_parse(text.p, &a);
    if (e == ERR_NOT_SUPPORTED)
        snprintf(why, n, "'%.40s' is not supported yet, expected an address such as 127.0.0.1:8080", text.p);
    if (e) return e == ERR_NOMEM ? e : ERR_CONFIG;
    if ((e = pointer_set(&l->text, text, false))) return e;
    l->address = a;
    return ERR_OK;
}

static bool address_value_format(const struct conf *c, const struct directive *row, const void *field,
                                 struct strbuf *out)
{
    const struct listen_conf *l = field;
    return string_format(c, row, &l->text, out);
}

static void address_value_clear(void *field)
{
    struct listen_conf *l = field;
    pointer_clear(&l->text);
}

/* ---- references: indexes into the caches and origins, which are read before */

static void reference_init(void *field)
{
    int none = -1;
    memcpy(field, &none, sizeof none);
}

/* "expected one of a, b", as far as they fit. */
static void reference_unknown(const char *what, struct str text, const char *(*name_at)(const struct conf *, unsigned),
                              const struct conf *c, unsigned count, char *why, size_t n)
{
    struct strbuf names;
    strbuf_init(&names, 256);
    for (unsigned i = 0; i < count && !names.failed; i++) strbuf_f(&names, i ? ", %s" : "%s", name_at(c, i));
    if (count)
        snprintf(why, n, "there is no %s '%.64s', expected one of %.*s", what, text.p, STR_ARG(strbuf_get(&names)));
    else
        snprintf(why, n, "there is no %s '%.64s', expected one that %ss: defines, and there are none", what, text.p,
                 what);
    strbuf_free(&names);
}

static const char *origin_name_at(const struct conf *c, unsigned i)
{
    return c->origins[i].name ? c->origins[i].name : "?";
}

static const char *cache_name_at(const struct conf *c, unsigned i)
{
    return c->caches[i].name ? c->caches[i].name : "?";
}

static enum err reference_parse(const char *what, const struct conf *c, unsigned count,
                                const char *(*name_at)(const struct conf *, unsigned), struct str text, void *field,
                                char *why, size_t n)
{
    for (unsigned i = 0; i < count; i++) {
        if (!str_eq(text, str_c(name_at(c, i)))) continue;
        int index = (int)i;
        memcpy(field, &index, sizeof index);
        return ERR_OK;
    }
    reference_unknown(what, text, name_at, c, count, why, n);
    return ERR_CONFIG;
}

static enum err origin_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                             size_t n)
{
    (void)row;
    return reference_parse("origin", c, c->norigins, origin_name_at, text, field, why, n);
}

static enum err cache_parse(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                            size_t n)
{
    (void)row;
    return reference_parse("cache", c, c->ncaches, cache_name_at, text, field, why, n);
}

static bool origin_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    int index;
    (void)row;
    memcpy(&index, field, sizeof index);
    if (index < 0) return false;
    strbuf_z(out, origin_name_at(c, (unsigned)index));
    return true;
}

static bool cache_format(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out)
{
    int index;
    (void)row;
    memcpy(&index, field, sizeof index);
    if (index < 0) return false;
    strbuf_z(out, cache_name_at(c, (unsigned)index));
    return true;
}

/* ---- the kinds */

#define NUMBER(name_, expects_, parse_, format_)                                                       \
    {                                                                                                  \
        .name = name_, .expects = expects_, .size = sizeof(uint64_t), .number = true, .parse = parse_, \
        .format = format_                                                                              \
    }
#define STRING(name_, expects_, parse_)                                                                       \
    {                                                                                                         \
        .name = name_, .expects = expects_, .size = sizeof(char *), .parse = parse_, .format = string_format, \
        .clear = pointer_clear                                                                                \
    }

const struct value_type value_count = NUMBER("number", "a whole number", count_parse, count_format);
const struct value_type value_size = NUMBER("size", "a size such as 512KiB or 4GiB", size_parse, size_format);
const struct value_type value_duration =
    NUMBER("duration", "a duration such as 250ms, 15s or 1h", duration_parse, duration_format);
const struct value_type value_workers = {.name = "number | auto",
                                         .expects = "a whole number or auto",
                                         .size = sizeof(unsigned),
                                         .number = true,
                                         .parse = workers_parse,
                                         .format = workers_format};
const struct value_type value_bool = {
    .name = "bool", .expects = "true or false", .size = sizeof(bool), .parse = bool_parse, .format = bool_format};
const struct value_type value_word = {
    .name = "word", .expects = "a word", .size = sizeof(int), .parse = word_parse, .format = word_format};
const struct value_type value_flag = {
    .name = "word", .expects = "a word", .size = sizeof(bool), .parse = flag_parse, .format = flag_format};
const struct value_type value_fixed = {
    .name = "word", .expects = "a word", .size = 0, .parse = fixed_parse, .format = fixed_format};
const struct value_type value_later = {.name = "not yet",
                                       .expects = "nothing here",
                                       .size = 0,
                                       .later = true,
                                       .parse = later_parse,
                                       .format = later_format};
const struct value_type value_string = STRING("text", "text", string_parse);
const struct value_type value_secret = {.name = "secret",
                                        .expects = "text",
                                        .size = sizeof(char *),
                                        .secret = true,
                                        .parse = string_parse,
                                        .format = string_format,
                                        .clear = pointer_clear};
const struct value_type value_name = STRING("name", "1 to 64 letters, digits, '-', '_' or '.'", name_parse);
const struct value_type value_path =
    STRING("path", "a path that begins with '/', without spaces, '?' or '#', percent-encoded", path_parse);
const struct value_type value_host = STRING("host", "a host name without port, or *.suffix (in quotes)", host_parse);
const struct value_type value_domain = STRING("domain", "a domain name such as s3.example.com", domain_parse);
const struct value_type value_authority = STRING("host", "a host name, with a port if need be", authority_value_parse);
const struct value_type value_method = STRING("method", "a method in capitals such as GET", method_parse);
const struct value_type value_endpoint = {.name = "URL",
                                          .expects = "a URL such as https://host:port",
                                          .size = sizeof(struct endpoint),
                                          .parse = endpoint_value_parse,
                                          .format = endpoint_value_format};
const struct value_type value_cidr = {.name = "network",
                                      .expects = "an address or network such as 10.0.0.0/8 or ::1",
                                      .size = sizeof(struct cidr),
                                      .parse = cidr_parse,
                                      .format = cidr_format};
const struct value_type value_address = {.name = "address",
                                         .expects = "an address such as 127.0.0.1:8080, [::1]:8080 or *:8080",
                                         .size = sizeof(struct listen_conf),
                                         .parse = address_value_parse,
                                         .format = address_value_format,
                                         .clear = address_value_clear};
const struct value_type value_origin = {.name = "origin",
                                        .expects = "the name of an origin",
                                        .size = sizeof(int),
                                        .init = reference_init,
                                        .parse = origin_parse,
                                        .format = origin_format};
const struct value_type value_cache = {.name = "cache",
                                       .expects = "the name of a cache",
                                       .size = sizeof(int),
                                       .init = reference_init,
                                       .parse = cache_parse,
                                       .format = cache_format};
