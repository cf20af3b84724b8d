/* expand.c - ${NAME}, ${NAME:-default} and $$. Reads the environment, so only the main thread may load a configuration. */
#include "conf/expand.h"

#include <stdio.h>
#include <stdlib.h>

#define NAME_MAX_BYTES 128

static bool variable_char(char c, bool first)
{
    if (c == '_' || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) return true;
    return !first && c >= '0' && c <= '9';
}

static size_t variable_length(struct str s)
{
    size_t n = 0;
    while (n < s.n && variable_char(s.p[n], n == 0)) n++;
    return n;
}

static struct str str_behind(struct str s, size_t n) { return str_make(s.p + n, s.n - n); }

static enum err refuse_malformed(char *why, size_t n)
{
    snprintf(why, n, "malformed variable, expected ${NAME}, ${NAME:-default}, or $$ for a dollar sign");
    return ERR_CONFIG;
}

/* The bound and missing memory both make a buffer fail; they are told apart before. */
static enum err expand_add(struct strbuf *out, struct str s, char *why, size_t n)
{
    if (s.n > out->max - out->n) {
        snprintf(why, n, "too long with its variables, expected at most 64KiB");
        return ERR_CONFIG;
    }
    strbuf_str(out, s);
    return out->failed ? ERR_NOMEM : ERR_OK;
}

/* The text behind ":-"; `$$` is a dollar sign here too, nesting is refused. */
static enum err expand_default(struct str text, struct strbuf *out, char *why, size_t n)
{
    while (text.n) {
        size_t at = str_find(text, '$');
        bool dollar = at < text.n;
        if (dollar && (at + 1 == text.n || text.p[at + 1] != '$')) return refuse_malformed(why, n);
        enum err e = expand_add(out, str_make(text.p, at + dollar), why, n);
        if (e) return e;
        text = str_behind(text, dollar ? at + 2 : at);
    }
    return ERR_OK;
}

/* `rest` stands behind "${"; it is moved behind the closing brace. */
static enum err expand_one(struct str *rest, struct strbuf *out, char *why, size_t n)
{
    char name[NAME_MAX_BYTES + 1];
    size_t name_n = variable_length(*rest);
    if (name_n == 0 || name_n > NAME_MAX_BYTES) return refuse_malformed(why, n);
    memcpy(name, rest->p, name_n);
    name[name_n] = '\0';
    *rest = str_behind(*rest, name_n);

    bool has_default = str_starts(*rest, STR_LIT(":-"));
    if (has_default) *rest = str_behind(*rest, 2);
    size_t end = str_find(*rest, '}');
    if (end == rest->n || (!has_default && end != 0)) return refuse_malformed(why, n);
    struct str fallback = str_make(rest->p, end);
    *rest = str_behind(*rest, end + 1);

    const char *value = getenv(name);
    if (has_default && (!value || !*value)) return expand_default(fallback, out, why, n);
    if (value) return expand_add(out, str_c(value), why, n);
    snprintf(why, n, "variable %s is not set, expected it in the environment or a default: ${%s:-value}", name, name);
    return ERR_CONFIG;
}

enum err expand_variables(struct str text, struct strbuf *out, char *why, size_t n)
{
    enum err e;
    while (text.n) {
        size_t plain = str_find(text, '$');
        if ((e = expand_add(out, str_make(text.p, plain), why, n))) return e;
        if (plain == text.n) break;
        text = str_behind(text, plain + 1);
        char c = text.n ? text.p[0] : '\0';
        if (c != '$' && c != '{') return refuse_malformed(why, n);
        text = str_behind(text, 1);
        e = c == '$' ? expand_add(out, STR_LIT("$"), why, n) : expand_one(&text, out, why, n);
        if (e) return e;
    }
    return ERR_OK;
}
