/* place.c - see the header. */
#include "cli/place.h"

#include <ctype.h>

#define BUCKET_MAX 255u

bool place_is_remote(const char *text) { return strncmp(text, "s3://", 5) == 0; }

static bool bucket_is_possible(struct str bucket)
{
    for (size_t i = 0; i < bucket.n; i++) {
        unsigned char c = (unsigned char)bucket.p[i];
        if (!isalnum(c) && c != '.' && c != '-' && c != '_') return false;
    }
    return bucket.n <= BUCKET_MAX && !str_eq(bucket, STR_LIT(".")) && !str_eq(bucket, STR_LIT(".."));
}

enum err place_parse(const char *text, struct place *out)
{
    if (!place_is_remote(text)) return ERR_BAD_URI;
    struct str rest = str_c(text + 5);
    size_t slash = str_find(rest, '/');
    out->bucket = str_make(rest.p, slash);
    out->key = slash < rest.n ? str_make(rest.p + slash + 1, rest.n - slash - 1) : str_make(rest.p + rest.n, 0);
    if (!bucket_is_possible(out->bucket) || (out->bucket.n == 0 && out->key.n)) return ERR_BAD_URI;
    return ERR_OK;
}

static size_t glob_at(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '*' || s.p[i] == '?' || s.p[i] == '[') return i;
    return s.n;
}

bool place_has_glob(struct str s) { return glob_at(s) < s.n; }

struct str place_glob_prefix(struct str pattern) { return str_make(pattern.p, glob_at(pattern)); }

bool have_pattern(char **uris, int n)
{
    struct place p;

    for (int i = 0; i < n; i++)
        if (place_parse(uris[i], &p) == ERR_OK && place_has_glob(p.key)) return true;
    return false;
}
