/* fuzz_conf.c - libFuzzer target: any bytes as a configuration file.
 *
 * What is refused says so in 1 to 20 lines that begin with the file's name. What is accepted must survive being dumped and
 * loaded again unchanged. Variables are set, so that their text comes in by expansion as well. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"

#define NAME "fuzz.yaml"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define REQUIRE(cond) ((cond) ? (void)0 : fuzz_fail(#cond, __LINE__))
static void fuzz_fail(const char *what, int line)
{
    fprintf(stderr, "fuzz_conf.c:%d: not so: %s\n", line, what);
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    setenv("A", "a b: [\"c\"] ${B} \xc3\xbc\xe2\x80\xa8", 1);
    setenv("B", "", 1);
    setenv("N", "1024", 1);
    setenv("BAD", "\xff\n", 1);
    return 0;
}

static enum err load(const char *text, size_t n, struct conf **out, char **errors)
{
    size_t size;
    FILE *f = open_memstream(errors, &size);
    REQUIRE(f != NULL);
    enum err e = conf_parse(NAME, text, n, f, out);
    fclose(f);
    return e;
}

static void check_errors(const char *errors)
{
    unsigned lines = 0;
    REQUIRE(*errors);
    for (const char *p = errors, *end; *p; p = end + 1, lines++) {
        end = strchr(p, '\n');
        REQUIRE(end && strncmp(p, NAME ":", strlen(NAME) + 1) == 0);
        for (const char *c = p; c < end; c++) REQUIRE((unsigned char)*c >= 0x20 && *c != 0x7f);
    }
    REQUIRE(lines >= 1 && lines <= 20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct conf *conf, *again;
    char *errors, *more;
    char *text = malloc(n ? n : 1); /* exact, so that a read behind it is seen */

    REQUIRE(text != NULL);
    if (n) memcpy(text, data, n);
    enum err e = load(text, n, &conf, &errors);
    free(text);
    if (e) {
        REQUIRE(conf == NULL);
        check_errors(errors);
        free(errors);
        return 0;
    }
    REQUIRE(*errors == '\0');
    char *dump = conf_dump(conf);
    REQUIRE(dump != NULL);
    if (load(dump, strlen(dump), &again, &more)) {
        fprintf(stderr, "%s\n%s", more, dump);
        abort();
    }
    char *second = conf_dump(again);
    REQUIRE(second != NULL && strcmp(dump, second) == 0);
    free(second);
    free(dump);
    free(more);
    free(errors);
    conf_unref(again);
    conf_unref(conf);
    return 0;
}
