/* fuzz_listing.c - libFuzzer target: any bytes as one of S3's documents.
 *
 * What is read lies within bounds (the sanitizers see to that), a page's entries have a key, and a page that says there
 * is another says how to get it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "s3/error_xml.h"
#include "s3/listing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define REQUIRE(cond) ((cond) ? (void)0 : fuzz_fail(#cond, __LINE__))
static void fuzz_fail(const char *what, int line)
{
    fprintf(stderr, "fuzz_listing.c:%d: not so: %s\n", line, what);
    abort();
}

struct seen {
    uint64_t bytes;
    unsigned left; /* then memory has run out */
};

static void touch(struct seen *s, struct str t)
{
    for (size_t i = 0; i < t.n; i++) s->bytes += (unsigned char)t.p[i];
}

static bool entry(void *arg, const struct listing_entry *e)
{
    struct seen *s = arg;
    REQUIRE(e->key.p);
    touch(s, e->key);
    touch(s, e->etag);
    touch(s, e->modified);
    touch(s, e->storage_class);
    return s->left-- > 0;
}

static bool bucket(void *arg, struct str name, struct str created)
{
    struct seen *s = arg;
    touch(s, name);
    touch(s, created);
    return s->left-- > 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *copy = malloc(n ? n : 1), *token, *text; /* exact, so that a read behind it is seen */
    struct seen s = {0, n ? data[0] : 0};

    REQUIRE(copy);
    if (n) memcpy(copy, data, n);
    struct str doc = str_make(copy, n);
    enum err e = listing_entries(doc, entry, &s, &token);
    REQUIRE(e == ERR_OK || !token);
    free(token);
    listing_buckets(doc, bucket, &s);
    text = listing_text(doc, "UploadId");
    free(text);
    touch(&s, error_xml_code(doc));
    free(copy);
    return s.bytes == UINT64_MAX; /* never: what was touched is used */
}
