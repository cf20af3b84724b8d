/* pattern.c - see the header. glibc takes \d for the letter d and "a+?" for "(a+)?": both would match quietly what the same
 * expression does not match elsewhere, so the first is translated and the second refused. */
#include "cli/pattern.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>

struct pattern {
    regex_t regex;
};

/* What glibc gives a meaning to, and the characters that only lose theirs. */
static bool escape_is_known(char c)
{
    return c && (strchr("wWsSbB<>`'", c) || strchr(".[]{}()*+?|^$\\/-", c) || (c >= '1' && c <= '9') || (unsigned char)c >= 0x80);
}

/* A bracket expression from *p (at '[') on is copied as it is, up to and with its ']'. */
static bool copy_bracket(const char **p, struct strbuf *out, char *msg, size_t n)
{
    const char *at = *p + 1;

    if (*at == '^') at++;
    if (*at == ']') at++;
    for (; *at && *at != ']'; at++) {
        if (*at == '\\' && at[1] && strchr("dDwWsSb", at[1])) {
            snprintf(msg, n, "\\%c stands between [ and ], where no class can: [[:digit:]], [[:alnum:]_], [[:space:]] do", at[1]);
            return false;
        }
        if (*at == '[' && at[1] && strchr(":.=", at[1])) {
            const char end[3] = {at[1], ']', '\0'};
            const char *close = strstr(at + 2, end);
            if (close) at = close + 1;
        }
    }
    strbuf_add(out, *p, (size_t)(at - *p) + (*at ? 1 : 0));
    *p = *at ? at : at - 1;
    return true;
}

static bool copy_escape(const char **p, struct strbuf *out, char *msg, size_t n)
{
    char c = (*p)[1];

    if (c == 'd' || c == 'D') {
        strbuf_z(out, c == 'd' ? "[0-9]" : "[^0-9]");
    } else if (c && !escape_is_known(c)) {
        snprintf(msg, n, "\\%c is not known: this is a POSIX extended regular expression", c);
        return false;
    } else {
        strbuf_add(out, *p, c ? 2 : 1);
    }
    *p += c ? 1 : 0;
    return true;
}

static bool translate(const char *text, struct strbuf *out, char *msg, size_t n)
{
    for (const char *p = text; *p; p++) {
        if (*p == '\\') {
            if (!copy_escape(&p, out, msg, n)) return false;
        } else if (*p == '[') {
            if (!copy_bracket(&p, out, msg, n)) return false;
        } else if (*p == '(' && p[1] == '?') {
            snprintf(msg, n, "(?...) is not known: this is a POSIX extended regular expression");
            return false;
        } else if (p != text && strchr("*+?}", *p) && (p[1] == '?' || p[1] == '+')) {
            snprintf(msg, n, "%c%c is not known: this is a POSIX extended regular expression", *p, p[1]);
            return false;
        } else {
            strbuf_ch(out, *p);
        }
    }
    strbuf_ch(out, '\0');
    return true;
}

bool pattern_open(const char *text, struct pattern **out, char *msg, size_t n)
{
    struct pattern *p = calloc(1, sizeof *p);
    struct strbuf b;
    int e = REG_ESPACE;

    *out = NULL;
    msg[0] = '\0';
    strbuf_init(&b, 0);
    if (p && translate(text, &b, msg, n) && !b.failed) e = regcomp(&p->regex, b.p, REG_EXTENDED | REG_NOSUB);
    strbuf_free(&b);
    if (e == 0) {
        *out = p;
        return true;
    }
    if (!msg[0] && p) regerror(e, &p->regex, msg, n);
    else if (!msg[0]) snprintf(msg, n, "%s", err_text(ERR_NOMEM));
    free(p);
    return false;
}

/* The length counts, as a key may hold zeros; but who checks memory wants to see one behind it, too. */
bool pattern_matches(const struct pattern *p, struct str key)
{
    regmatch_t range = {.rm_so = 0, .rm_eo = (regoff_t)key.n};
    char few[2048], *text = few;

    if (!p) return true;
    if (key.n >= sizeof few && (text = malloc(key.n + 1)) == NULL) return false;
    if (key.n) memcpy(text, key.p, key.n);
    text[key.n] = '\0';
    bool yes = regexec(&p->regex, text, 1, &range, REG_STARTEND) == 0;
    if (text != few) free(text);
    return yes;
}

void pattern_close(struct pattern *p)
{
    if (!p) return;
    regfree(&p->regex);
    free(p);
}
