/* out.c - what commands print. See cli.h. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static void say(const char *fmt, va_list args)
{
    char line[2048];
    int n = vsnprintf(line, sizeof line, fmt, args);

    /* names of objects may hold anything; a terminal must not act on it */
    for (int i = 0; i < n && line[i]; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f) line[i] = '?';
    /* a bar may stand there, with the cursor at its begin (progress.h) */
    fprintf(stderr, "%s" CLI_NAME ": %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "", line);
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

    if (!ok) cli_error("cannot print the result: %s", value ? strerror(errno) : err_text(ERR_NOMEM));
    json_decref(value);
    return ok;
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

const char *printable(struct str s, struct strbuf *buf)
{
    buf->n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < ' ' || c == 0x7f) strbuf_f(buf, "\\x%02x", c);
        else strbuf_ch(buf, (char)c);
    }
    strbuf_ch(buf, '\0');
    return buf->failed ? "?" : buf->p;
}
