/* out.c - what commands print. See cli.h. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* Names of objects may hold anything; a terminal must not act on it. */
static void say(const char *fmt, va_list args)
{
    char line[4096];
    struct strbuf shown;
    int n = vsnprintf(line, sizeof line, fmt, args);

    strbuf_init(&shown, 0);
    /* a bar may stand there, with the cursor at its begin (progress.h) */
    fprintf(stderr, "%s" CLI_NAME ": %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "",
            printable(str_make(line, n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1), &shown));
    strbuf_free(&shown);
}

void cli_error(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say(fmt, args);
    va_end(args);
}

void cli_note(const struct cli *cli, const char *fmt, ...)
{
    va_list args;
    if (cli->quiet) return;
    va_start(args, fmt);
    say(fmt, args);
    va_end(args);
}

int cli_failed(const struct call_result *r, const char *what, struct str bucket, struct str key)
{
    char why[512];

    if (r->err == ERR_CANCELLED && r->status == 0) return EXIT_INTERRUPTED;
    cli_error("cannot %s s3://" STR_FMT "%s" STR_FMT ": %s", what, STR_ARG(bucket), key.n ? "/" : "", STR_ARG(key),
              call_why(r, why, sizeof why));
    return call_not_found(r) ? EXIT_NOT_THERE : EXIT_FAILED;
}

bool cli_print_json(json_t *value)
{
    bool ok = value && json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) == 0 && putchar('\n') != EOF;

    if (!value) cli_error("%s", err_text(ERR_NOMEM)); /* what could not be written is cli_flush's to say */
    json_decref(value);
    return ok;
}

bool cli_print_json_line(json_t *value)
{
    if (!value) cli_error("%s", err_text(ERR_NOMEM));
    bool ok = value && json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY) == 0 && putchar('\n') != EOF;
    json_decref(value);
    return ok;
}

bool cli_read_place(const char *text, bool needs_key, struct place *out)
{
    bool ok = place_parse(text, out) == ERR_OK && out->bucket.n;

    if (ok && (out->key.n || !needs_key)) return true;
    if (ok) cli_error("%s names no object: expected s3://BUCKET/KEY", text);
    else cli_error("%s: expected s3://BUCKET%s", text, needs_key ? "/KEY" : "[/KEY]");
    return false;
}

json_t *cli_json_str(struct str s)
{
    json_t *v = json_stringn(s.p ? s.p : "", s.n);
    struct strbuf b;

    if (v) return v;
    strbuf_init(&b, 0);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x80) strbuf_ch(&b, (char)c);
        else strbuf_f(&b, "\\x%02x", c);
    }
    v = b.failed ? NULL : json_stringn(b.p, b.n);
    strbuf_free(&b);
    return v;
}

/* errno may be that of something later: the pipe is asked whether anybody still reads it. */
static bool reader_left(void)
{
    struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP));
}

int cli_flush(int code)
{
    if (code == EXIT_INTERRUPTED && ferror(stdout)) return code;
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    if (errno == EPIPE || reader_left()) return code;
    cli_error("cannot write to standard output%s%s", errno ? ": " : "", errno ? strerror(errno) : "");
    return code == EXIT_OK ? EXIT_FAILED : code;
}

char *human_bytes(double bytes, char *buf, size_t n)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned u = 0;

    while (bytes >= 1023.95 && u + 1 < ARRAY_LEN(units)) {
        bytes /= 1024;
        u++;
    }
    snprintf(buf, n, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return buf;
}

char *human_duration(double seconds, char *buf, size_t n)
{
    unsigned long s = seconds > 0 ? (unsigned long)seconds : 0;

    if (seconds < 60) snprintf(buf, n, "%.1f s", seconds > 0 ? seconds : 0);
    else if (s < 3600) snprintf(buf, n, "%lu:%02lu", s / 60, s % 60);
    else snprintf(buf, n, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    return buf;
}

/* Bytes of the UTF-8 character at p; 0: there is none, or one that terminals act on (C1 controls). */
static size_t utf8_length(const unsigned char *p, size_t n)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;

    if (len == 1) return p[0] < ' ' || p[0] == 0x7f ? 0 : 1;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n < len) return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    /* overlong, surrogates, beyond U+10FFFF; U+0080..U+009F */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f) || (p[0] == 0xc2 && p[1] < 0xa0))
        return 0;
    return len;
}

const char *printable(struct str s, struct strbuf *buf)
{
    const unsigned char *p = (const unsigned char *)s.p;

    buf->n = 0;
    for (size_t i = 0, len; i < s.n; i += len ? len : 1) {
        len = utf8_length(p + i, s.n - i);
        if (len) strbuf_add(buf, p + i, len);
        else strbuf_f(buf, "\\x%02x", p[i]);
    }
    strbuf_ch(buf, '\0');
    return buf->failed ? "?" : buf->p;
}

const char *printable_time(struct str s, struct strbuf *buf)
{
    bool has_fraction = s.n > 20 && s.p[19] == '.' && s.p[s.n - 1] == 'Z';

    printable(has_fraction ? str_make(s.p, 19) : s, buf);
    if (!has_fraction || buf->failed) return buf->failed ? "?" : buf->p;
    buf->p[buf->n - 1] = 'Z';
    strbuf_ch(buf, '\0');
    return buf->failed ? "?" : buf->p;
}
