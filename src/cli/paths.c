/* paths.c - see the header. */
#include "cli/paths.h"

#include <stdlib.h>

#include "cli/cli.h"

const char *path_objection(struct str key)
{
    struct str rest = key, segment;

    if (key.n == 0) return "the key is empty";
    if (memchr(key.p, '\0', key.n)) return "the key holds a NUL byte and cannot be a file's name";
    if (key.p[0] == '/') return "the key begins with a slash and would leave the directory";
    if (key.p[key.n - 1] == '/') return "the key ends with a slash and cannot be a file's name";
    while (str_split(&rest, '/', &segment)) {
        if (segment.n == 0) return "the key has an empty segment ('//') and cannot be a path";
        if (str_eq(segment, STR_LIT("."))) return "the key has a segment '.' and cannot be a path";
        if (str_eq(segment, STR_LIT(".."))) return "the key has a segment '..' and would leave the directory";
    }
    return NULL;
}

/* The set that begins at p (behind '['); *end behind its ']', NULL when it has none: then '[' stands for itself. */
static bool in_set(const char *p, const char *stop, char c, const char **end)
{
    bool negate = p < stop && (*p == '!' || *p == '^'), found = false;
    const char *first = p += negate;

    *end = NULL;
    for (; p < stop && (*p != ']' || p == first); p++) {
        unsigned char low = (unsigned char)*p, high = low;
        if (p + 2 < stop && p[1] == '-' && p[2] != ']') {
            high = (unsigned char)p[2];
            p += 2;
        }
        found |= low <= (unsigned char)c && (unsigned char)c <= high;
    }
    if (p < stop) *end = p + 1;
    return found != negate;
}

/* One character of the pattern that is no star against c; 0: no match, else how much of the pattern it took. */
static size_t match_one(const char *p, const char *stop, char c, bool deep)
{
    const char *end;
    bool in;

    if (*p == '?') return deep || c != '/' ? 1 : 0;
    if (*p == '\\' && p + 1 < stop) return p[1] == c ? 2 : 0;
    if (*p != '[') return *p == c ? 1 : 0;
    in = in_set(p + 1, stop, c, &end);
    if (!end) return c == '[' ? 1 : 0;
    return in && (deep || c != '/') ? (size_t)(end - p) : 0;
}

/* Where to go back to: the last star, and the last one that crosses slashes. */
struct star {
    const char *p, *t; /* the pattern behind it; the text it has not taken yet. NULL: none */
};

bool path_match(struct str pattern, struct str text, bool deep)
{
    const char *p = pattern.p, *pe = p + pattern.n, *t = text.p, *te = t + text.n;
    struct star near = {NULL, NULL}, far = {NULL, NULL};

    for (;;) {
        if (p < pe && *p == '*') {
            bool crosses = deep || (p + 1 < pe && p[1] == '*');
            while (p < pe && *p == '*') p++;
            if (crosses) far = (struct star){p, t}, near.p = NULL;
            else near = (struct star){p, t};
            continue;
        }
        size_t used = p < pe && t < te ? match_one(p, pe, *t, deep) : 0;
        if (used) {
            p += used;
            t++;
        } else if (p == pe && t == te) {
            return true;
        } else if (near.p && near.t < te && *near.t != '/') {
            p = near.p;
            t = ++near.t;
        } else if (far.p && far.t < te) {
            near.p = NULL;
            p = far.p;
            t = ++far.t;
        } else {
            return false;
        }
    }
}

struct str path_base(struct str path)
{
    struct str dir = path_dir(path);
    return str_make(path.p + dir.n, path.n - dir.n);
}

struct str path_dir(struct str path)
{
    size_t n = path.n;
    while (n && path.p[n - 1] != '/') n--;
    return str_make(path.p, n);
}

static int by_base(const void *a, const void *b)
{
    struct str x = path_base(str_c(*(char *const *)a)), y = path_base(str_c(*(char *const *)b));
    int c = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);

    return c ? c : (x.n > y.n) - (x.n < y.n);
}

bool paths_collide(char **operands, int n, const char *what)
{
    char **sorted = n > 1 ? malloc((size_t)n * sizeof *sorted) : NULL;
    bool found = false;

    if (!sorted) return false;
    memcpy(sorted, operands, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_base);
    for (int i = 1; i < n && !found; i++)
        if (path_base(str_c(sorted[i])).n && by_base(&sorted[i - 1], &sorted[i]) == 0) {
            cli_error("%s and %s would be the same %s", sorted[i - 1], sorted[i], what);
            found = true;
        }
    free(sorted);
    return found;
}
