/* creds.c - credentials from the environment, the AWS profile files, the configuration, or none.
 *
 * The profile files are INI as the AWS tools read them: sections [name] in credentials, [profile name] and [default] in
 * config; `key = value`; lines that start with # or ; are comments, and so is what follows one behind white space; a
 * line indented deeper than the key before it belongs to that key (nested settings) and is none of our business. Later
 * settings win over earlier ones, and the credentials file over the config file.
 *
 * A profile that asks for more than reading a file (role, SSO, a helper process) is refused with its reason. Keys beside
 * a role are refused too: they are what the role is assumed with, another identity. Keys beside SSO or a helper are
 * taken: tools that log in put them there. Buffers that held secrets are wiped before they are freed. */
#include "s3/creds.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/str.h"

#define FILE_MAX_BYTES ((size_t)1 << 20)
#define PATH_BYTES 4096

/* What went wrong, for people: never a value, only names. */
struct report {
    char *msg;
    size_t n;
};

static enum err fail(const struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static enum err fail(const struct report *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (r->n) vsnprintf(r->msg, r->n, fmt, ap);
    va_end(ap);
    return ERR_CREDENTIALS;
}

/* ---- values */

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

static const char *env_region(void)
{
    const char *region = env("AWS_REGION");
    return region ? region : env("AWS_DEFAULT_REGION");
}

/* Printable ASCII that fits: everything here ends up in a header field or in one line of a string to sign. */
static enum err set_value(char *to, size_t room, struct str value, const char *what, const struct report *r)
{
    if (value.n >= room) return fail(r, "%s is longer than %zu characters", what, room - 1);
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] <= ' ' || value.p[i] > '~')
            return fail(r, "%s holds white space or other characters that are not printable ASCII", what);
    if (value.n) memcpy(to, value.p, value.n);
    to[value.n] = '\0';
    return ERR_OK;
}

#define SET(field, value, what) set_value(field, sizeof(field), value, what, r)

/* ---- environment and configuration */

static bool env_has_keys(void) { return env("AWS_ACCESS_KEY_ID") || env("AWS_SECRET_ACCESS_KEY"); }

static enum err load_env(struct credentials *out, const struct report *r)
{
    const char *id = env("AWS_ACCESS_KEY_ID"), *secret = env("AWS_SECRET_ACCESS_KEY");
    const char *token = env("AWS_SESSION_TOKEN");

    if (!token) token = env("AWS_SECURITY_TOKEN"); /* its name of old */
    if (!id && !secret) return fail(r, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set");
    if (!id) return fail(r, "AWS_SECRET_ACCESS_KEY is set but AWS_ACCESS_KEY_ID is not");
    if (!secret) return fail(r, "AWS_ACCESS_KEY_ID is set but AWS_SECRET_ACCESS_KEY is not");
    enum err e = SET(out->access_key, str_c(id), "AWS_ACCESS_KEY_ID");
    if (!e) e = SET(out->secret_key, str_c(secret), "AWS_SECRET_ACCESS_KEY");
    if (!e) e = SET(out->session_token, str_c(token), "AWS_SESSION_TOKEN");
    if (!e) e = SET(out->region, str_c(env_region()), "AWS_REGION");
    return e;
}

static enum err load_static(const struct creds_conf *c, struct credentials *out, const struct report *r)
{
    if (!c->access_key || !*c->access_key) return fail(r, "static credentials need access_key");
    if (!c->secret_key || !*c->secret_key) return fail(r, "static credentials need secret_key");
    enum err e = SET(out->access_key, str_c(c->access_key), "access_key");
    if (!e) e = SET(out->secret_key, str_c(c->secret_key), "secret_key");
    if (!e) e = SET(out->session_token, str_c(c->session_token), "session_token");
    return e;
}

/* ---- files */

struct text {
    char *p;
    size_t n;
};

static void text_free(struct text *t)
{
    if (t->p) OPENSSL_cleanse(t->p, t->n);
    free(t->p);
    *t = (struct text){NULL, 0};
}

static enum err read_all(int fd, struct text *t)
{
    t->p = malloc(FILE_MAX_BYTES + 1);
    if (!t->p) return ERR_NOMEM;
    t->n = 0;
    while (t->n <= FILE_MAX_BYTES) {
        ssize_t got = read(fd, t->p + t->n, FILE_MAX_BYTES + 1 - t->n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return ERR_IO;
        if (got == 0) return ERR_OK;
        t->n += (size_t)got;
    }
    errno = EFBIG;
    return ERR_IO;
}

/* A file that is not there is no error: *t stays empty. */
static enum err file_read(const char *path, struct text *t, bool *exists, const struct report *r)
{
    struct stat st;

    *t = (struct text){NULL, 0};
    *exists = false;
    /* O_NONBLOCK: opening a FIFO must not hang the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return ERR_OK;
    if (fd < 0) return fail(r, "cannot open %s: %s", path, strerror(errno));
    *exists = true;
    enum err e = ERR_OK;
    if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
        e = fail(r, "cannot read %s: not a regular file", path);
    else if (read_all(fd, t) != ERR_OK)
        e = fail(r, "cannot read %s: %s", path, t->p ? strerror(errno) : err_text(ERR_NOMEM));
    if (e) text_free(t);
    close(fd);
    return e;
}

/* ---- profiles */

/* X(field, key in the file) */
#define PROFILE_KEYS(X)                                                                                              \
    X(access_key, "aws_access_key_id")                                                                               \
    X(secret_key, "aws_secret_access_key") X(session_token, "aws_session_token")                                     \
        X(security_token, "aws_security_token") X(region, "region") X(role_arn, "role_arn")                          \
            X(source_profile, "source_profile") X(credential_source, "credential_source")                            \
                X(web_identity, "web_identity_token_file") X(process, "credential_process")                          \
                    X(sso_session, "sso_session") X(sso_start_url, "sso_start_url") X(sso_account, "sso_account_id") \
                        X(sso_role, "sso_role_name") X(login_session, "login_session")

/* Slices of the files' texts. */
struct profile {
#define X(field, key) struct str field;
    PROFILE_KEYS(X)
#undef X
    bool found;
};

static void profile_set(struct profile *p, struct str key, struct str value)
{
#define X(field, name) \
    if (str_eq_ci(key, STR_LIT(name))) p->field = value;
    PROFILE_KEYS(X)
#undef X
}

/* Where `over` says something it wins. */
static void profile_overlay(struct profile *p, const struct profile *over)
{
#define X(field, name) \
    if (over->field.n) p->field = over->field;
    PROFILE_KEYS(X)
#undef X
    p->found |= over->found;
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

static struct str without_comment(struct str s)
{
    for (size_t i = 1; i < s.n; i++)
        if ((s.p[i] == '#' || s.p[i] == ';') && is_blank(s.p[i - 1])) return str_trim(str_make(s.p, i));
    return s;
}

static struct str unquoted(struct str s)
{
    bool quoted = s.n >= 2 && (s.p[0] == '"' || s.p[0] == '\'') && s.p[s.n - 1] == s.p[0];
    return quoted ? str_make(s.p + 1, s.n - 2) : s;
}

enum section_style { CREDENTIALS_FILE, CONFIG_FILE, EITHER };

/* Is the section with this text (between the brackets) the profile's? */
static bool section_is(struct str title, struct str profile, enum section_style style)
{
    struct str word = STR_LIT("profile");
    title = str_trim(title);
    bool prefixed = str_starts(title, word) && title.n > word.n && is_blank(title.p[word.n]);
    struct str name = prefixed ? unquoted(str_trim(str_make(title.p + word.n, title.n - word.n))) : title;

    if (!str_eq(unquoted(name), profile)) return false;
    if (prefixed) return style != CREDENTIALS_FILE;
    return style != CONFIG_FILE || str_eq(profile, STR_LIT("default"));
}

/* Reading position within a file. */
struct ini {
    bool in_profile, in_key;
    size_t key_indent;
};

static void ini_line(struct ini *ini, struct str line, struct str profile, enum section_style style,
                     struct profile *out)
{
    size_t indent = 0;
    while (indent < line.n && is_blank(line.p[indent])) indent++;
    struct str s = str_trim(line);
    if (s.n == 0 || s.p[0] == '#' || s.p[0] == ';') return;
    if (ini->in_key && indent > ini->key_indent) return; /* nested under the key before */
    if (s.p[0] == '[') {
        size_t end = str_find(s, ']');
        ini->in_key = false;
        ini->in_profile = end < s.n && section_is(str_make(s.p + 1, end - 1), profile, style);
        out->found |= ini->in_profile;
        return;
    }
    size_t at = str_find(s, '=');
    ini->in_key = true;
    ini->key_indent = indent;
    if (at == s.n || !ini->in_profile) return;
    struct str value = str_trim(str_make(s.p + at + 1, s.n - at - 1));
    if (value.n && (value.p[0] == '#' || value.p[0] == ';') && is_blank(value.p[-1])) value.n = 0;
    profile_set(out, str_trim(str_make(s.p, at)), without_comment(value));
}

static void profile_parse(const struct text *t, struct str name, enum section_style style, struct profile *out)
{
    struct str rest = str_make(t->p, t->n), line;
    struct ini ini = {0};

    if (str_starts(rest, STR_LIT("\xEF\xBB\xBF"))) rest = str_make(rest.p + 3, rest.n - 3);
    while (str_split(&rest, '\n', &line)) {
        if (line.n && line.p[line.n - 1] == '\r') line.n--;
        ini_line(&ini, line, name, style, out);
    }
}

/* $HOME, else what the user database says; false without a home. */
static bool home_path(char out[PATH_BYTES], const char *below)
{
    const char *home = env("HOME");
    struct passwd pw, *found = NULL;
    char buf[4096];
    if (!home && getpwuid_r(getuid(), &pw, buf, sizeof buf, &found) == 0 && found) home = found->pw_dir;
    if (!home || !*home) return false;
    int n = snprintf(out, PATH_BYTES, "%s/%s", home, below);
    return n > 0 && n < PATH_BYTES;
}

/* `variable`'s value ("~/" expanded) or ~/`below`; empty when there is no home to look in. */
static void usual_path(char out[PATH_BYTES], const char *variable, const char *below)
{
    const char *set = env(variable);
    bool ok;
    if (set && set[0] == '~' && set[1] == '/') {
        ok = home_path(out, set + 2);
    } else if (set) {
        int n = snprintf(out, PATH_BYTES, "%s", set);
        ok = n > 0 && n < PATH_BYTES;
    } else {
        ok = home_path(out, below);
    }
    if (!ok) out[0] = '\0';
}

/* What a profile may ask for that is more than reading keys from a file; NULL: nothing. */
static const char *profile_needs(const struct profile *p)
{
    if (p->role_arn.n && p->web_identity.n) return "web_identity_token_file";
    if (p->role_arn.n) return "role_arn";
    if (p->access_key.n || p->secret_key.n) return NULL;
    if (p->source_profile.n) return "source_profile";
    if (p->credential_source.n) return "credential_source";
    if (p->web_identity.n) return "web_identity_token_file";
    if (p->sso_session.n || p->sso_start_url.n || p->sso_account.n || p->sso_role.n) return "sso";
    if (p->process.n) return "credential_process";
    return p->login_session.n ? "login_session" : NULL;
}

static enum err profile_take(const struct profile *p, const char *name, const char *where, struct credentials *out,
                             const struct report *r)
{
    const char *needs = profile_needs(p);
    if (!p->found) return fail(r, "profile \"%s\" not found in %s", name, where);
    if (needs) return fail(r, "profile \"%s\" uses %s, which is not supported", name, needs);
    if (!p->access_key.n && !p->secret_key.n) return fail(r, "profile \"%s\" in %s has no keys", name, where);
    if (!p->access_key.n) return fail(r, "profile \"%s\" in %s has no aws_access_key_id", name, where);
    if (!p->secret_key.n) return fail(r, "profile \"%s\" in %s has no aws_secret_access_key", name, where);
    enum err e = SET(out->access_key, p->access_key, "aws_access_key_id");
    if (!e) e = SET(out->secret_key, p->secret_key, "aws_secret_access_key");
    if (!e) e = SET(out->session_token, p->session_token.n ? p->session_token : p->security_token, "aws_session_token");
    if (!e && p->region.n) e = SET(out->region, p->region, "region");
    return e;
}

struct files {
    struct text credentials, config;
    char where[2 * PATH_BYTES + 8];
    bool any;
};

static enum err files_read(struct files *f, const char *only, const struct report *r)
{
    char a[PATH_BYTES], b[PATH_BYTES] = "";
    bool have_a = false, have_b = false;
    enum err e = ERR_OK;

    if (only) {
        int n = snprintf(a, sizeof a, "%s", only);
        if (n < 0 || (size_t)n >= sizeof a) return fail(r, "the path of the credentials file is too long");
    } else {
        usual_path(a, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
        usual_path(b, "AWS_CONFIG_FILE", ".aws/config");
    }
    if (a[0]) e = file_read(a, &f->credentials, &have_a, r);
    if (!e && b[0]) e = file_read(b, &f->config, &have_b, r);
    f->any = have_a || have_b;
    snprintf(f->where, sizeof f->where, "%s%s%s", a, a[0] && b[0] ? " or " : "", b);
    if (!e && only && !have_a) e = fail(r, "cannot open %s: %s", a, strerror(ENOENT));
    return e;
}

static void files_free(struct files *f)
{
    text_free(&f->credentials);
    text_free(&f->config);
    free(f);
}

/* The two files' views of the profile in one. */
static struct profile profile_of(const struct files *f, const char *name, bool only)
{
    struct profile p = {0}, over = {0};
    profile_parse(&f->config, str_c(name), CONFIG_FILE, &p);
    profile_parse(&f->credentials, str_c(name), only ? EITHER : CREDENTIALS_FILE, &over);
    profile_overlay(&p, &over);
    return p;
}

static const char *profile_name(const struct creds_conf *c)
{
    const char *name = c->profile && *c->profile ? c->profile : env("AWS_PROFILE");
    if (!name) name = env("AWS_DEFAULT_PROFILE");
    return name ? name : "default";
}

static enum err load_profile(const struct creds_conf *c, struct credentials *out, const struct report *r)
{
    const char *name = profile_name(c);
    struct files *f = calloc(1, sizeof *f);

    if (!f) return fail(r, "%s", err_text(ERR_NOMEM));
    enum err e = files_read(f, c->file, r);
    if (!e && !f->any) e = fail(r, "no profile files: %s", f->where[0] ? f->where : "there is no home directory");
    if (!e) {
        struct profile p = profile_of(f, name, c->file != NULL);
        e = profile_take(&p, name, f->where, out, r);
    }
    files_free(f);
    /* The profile's own region comes first: it was chosen by name, perhaps one of several. */
    if (!e && !out->region[0]) e = SET(out->region, str_c(env_region()), "AWS_REGION");
    return e;
}

/* The region a profile names, if it can be had: keys from the environment often come without one. */
static void region_from_profile(const struct creds_conf *c, struct credentials *out)
{
    const struct report silent = {NULL, 0};
    struct files *f = calloc(1, sizeof *f);

    if (!f) return;
    if (files_read(f, c->file, &silent) == ERR_OK) {
        struct profile p = profile_of(f, profile_name(c), c->file != NULL);
        if (set_value(out->region, sizeof out->region, p.region, "region", &silent)) out->region[0] = '\0';
    }
    files_free(f);
}

static enum err load_auto(const struct creds_conf *c, struct credentials *out, const struct report *r)
{
    if (env_has_keys()) {
        enum err e = load_env(out, r);
        if (!e && !out->region[0]) region_from_profile(c, out);
        return e;
    }
    char why[1024] = "";
    const struct report inner = {why, sizeof why};
    enum err e = load_profile(c, out, &inner);
    if (e) return fail(r, "AWS_ACCESS_KEY_ID is not set, and %s", why);
    const char *region = env_region();
    return region ? SET(out->region, str_c(region), "AWS_REGION") : ERR_OK;
}

/* ---- interface */

enum err creds_load(const struct creds_conf *c, struct credentials *out, char *msg, size_t n)
{
    const struct report r = {msg, n};
    enum err e = ERR_OK;

    if (n) msg[0] = '\0';
    memset(out, 0, sizeof *out);
    switch (c->source) {
    case CREDS_AUTO: e = load_auto(c, out, &r); break;
    case CREDS_ENV: e = load_env(out, &r); break;
    case CREDS_PROFILE: e = load_profile(c, out, &r); break;
    case CREDS_STATIC: e = load_static(c, out, &r); break;
    case CREDS_NONE: out->anonymous = true; break;
    }
    if (e) creds_wipe(out);
    /* One line, whatever names and paths went into it. */
    for (size_t i = 0; i < n && msg[i]; i++)
        if ((unsigned char)msg[i] < ' ') msg[i] = '?';
    return e;
}

void creds_wipe(struct credentials *c) { OPENSSL_cleanse(c, sizeof *c); }
