/* module.c - the registry of modules.
 *
 * A module is checked before any of its functions runs: the ABI first (only `abi` and `name` keep their
 * places in every version), then names, then that what it hooks fits together. Only when all are found good
 * are they initialised, in the table's order; if one refuses, those before it are shut down again, last
 * first. After that nothing changes any more, so workers read it without locks.
 *
 * Module structs belong to whoever listed them and outlive the registry; it owns only its arrays. */
#include "module/module.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "module/builtin.h"

#define MODULES_MAGIC 0x4d0d51e5u
#define MODULES_MAX 256
#define NAME_MAX_BYTES 64
#define WHY_BYTES 512

struct modules {
    uint32_t magic;
    unsigned count, initialised;
    const s3p_module **all; /* in the order of their init; the four arrays are one block */
    const s3p_module **access, **head_filters, **log; /* sorted, NULL-terminated */
};

/* ---- checks */

/* Names stand in configurations and log lines. */
static bool name_is_valid(const char *name)
{
    size_t n = name ? strnlen(name, NAME_MAX_BYTES + 1) : 0;
    if (n == 0 || n > NAME_MAX_BYTES) return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == n;
}

static enum err check_names(const s3p_module *mod, char *msg, size_t n)
{
    if (!name_is_valid(mod->name)) {
        snprintf(msg, n, "a module has no valid name: 1 to %d of a-z, 0-9, - and _ expected", NAME_MAX_BYTES);
        return ERR_CONFIG;
    }
    if (!mod->handler_name != !mod->handler) {
        snprintf(msg, n, "module %s: handler_name and handler come together, it has only %s", mod->name,
                 mod->handler ? "the handler" : "the name");
        return ERR_CONFIG;
    }
    if (mod->handler_name && !name_is_valid(mod->handler_name)) {
        snprintf(msg, n, "module %s: its handler has no valid name: 1 to %d of a-z, 0-9, - and _ expected",
                 mod->name, NAME_MAX_BYTES);
        return ERR_CONFIG;
    }
    return ERR_OK;
}

static enum err check_pair(const s3p_module *a, const s3p_module *b, char *msg, size_t n)
{
    if (strcmp(a->name, b->name) == 0) {
        snprintf(msg, n, "two modules are named %s", a->name);
        return ERR_CONFIG;
    }
    if (a->handler_name && b->handler_name && strcmp(a->handler_name, b->handler_name) == 0) {
        snprintf(msg, n, "modules %s and %s both serve handler: %s", a->name, b->name, a->handler_name);
        return ERR_CONFIG;
    }
    return ERR_OK;
}

static enum err check_all(const s3p_module *const *table, unsigned count, char *msg, size_t n)
{
    if (count > MODULES_MAX) {
        snprintf(msg, n, "too many modules: at most %d expected", MODULES_MAX);
        return ERR_CONFIG;
    }
    for (unsigned i = 0; i < count; i++) {
        if (table[i]->abi != S3P_ABI_VERSION) {
            snprintf(msg, n, "module %s: built for module ABI %u, this program has %u",
                     name_is_valid(table[i]->name) ? table[i]->name : "without a name", table[i]->abi,
                     S3P_ABI_VERSION);
            return ERR_NOT_SUPPORTED;
        }
        enum err e = check_names(table[i], msg, n);
        for (unsigned k = 0; k < i && e == ERR_OK; k++) e = check_pair(table[k], table[i], msg, n);
        if (e != ERR_OK) return e;
    }
    return ERR_OK;
}

/* ---- phases */

/* Names are unique, so the order is total and does not depend on the sort. */
static int compare_hooks(const void *pa, const void *pb)
{
    const s3p_module *a = *(const s3p_module *const *)pa, *b = *(const s3p_module *const *)pb;
    if (a->order != b->order) return a->order < b->order ? -1 : 1;
    return strcmp(a->name, b->name);
}

static void fill_phases(struct modules *m)
{
    unsigned naccess = 0, nfilters = 0, nlog = 0;
    for (unsigned i = 0; i < m->count; i++) {
        if (m->all[i]->access) m->access[naccess++] = m->all[i];
        if (m->all[i]->head_filter) m->head_filters[nfilters++] = m->all[i];
        if (m->all[i]->log) m->log[nlog++] = m->all[i];
    }
    qsort(m->access, naccess, sizeof *m->access, compare_hooks);
    qsort(m->head_filters, nfilters, sizeof *m->head_filters, compare_hooks);
    qsort(m->log, nlog, sizeof *m->log, compare_hooks);
}

/* ---- life */

static enum err modules_alloc(const s3p_module *const *table, unsigned count, struct modules **out)
{
    struct modules *m = malloc(sizeof *m);
    size_t row = (size_t)count + 1; /* with the terminator */

    *out = NULL;
    if (!m) return ERR_NOMEM;
    const s3p_module **block = calloc(4 * row, sizeof *block);
    if (!block) {
        free(m);
        return ERR_NOMEM;
    }
    *m = (struct modules){.magic = MODULES_MAGIC,
                          .count = count,
                          .all = block,
                          .access = block + row,
                          .head_filters = block + 2 * row,
                          .log = block + 3 * row};
    for (unsigned i = 0; i < count; i++) m->all[i] = table[i];
    fill_phases(m);
    *out = m;
    return ERR_OK;
}

static enum err modules_init(struct modules *m, const s3p_api *api, char *msg, size_t n)
{
    for (; m->initialised < m->count; m->initialised++) {
        const s3p_module *mod = m->all[m->initialised];
        char why[WHY_BYTES] = "";
        if (!mod->init || mod->init(api, why, sizeof why) == 0) continue;
        why[sizeof why - 1] = '\0'; /* whatever the module did */
        snprintf(msg, n, "module %s: %s", mod->name, why[0] ? why : "did not start, and gave no reason");
        return ERR_IO;
    }
    return ERR_OK;
}

static enum err modules_create_from(const s3p_module *const *table, const s3p_api *api, struct modules **out,
                                    char *msg, size_t n)
{
    unsigned count = 0;
    struct modules *m;

    *out = NULL;
    if (n) msg[0] = '\0';
    CHECK(api && api->abi == S3P_ABI_VERSION);
    while (table[count]) count++;
    enum err e = check_all(table, count, msg, n);
    if (e != ERR_OK) return e;
    e = modules_alloc(table, count, &m);
    if (e != ERR_OK) {
        snprintf(msg, n, "modules: %s", err_text(e));
        return e;
    }
    e = modules_init(m, api, msg, n);
    if (e != ERR_OK) {
        modules_destroy(m);
        return e;
    }
    *out = m;
    return ERR_OK;
}

enum err modules_create(const s3p_api *api, struct modules **out, char *msg, size_t n)
{
    return modules_create_from(builtin_modules, api, out, msg, n);
}

void modules_destroy(struct modules *m)
{
    if (!m) return;
    CHECK_OBJ(m, MODULES_MAGIC);
    while (m->initialised) {
        const s3p_module *mod = m->all[--m->initialised];
        if (mod->exit) mod->exit();
    }
    m->magic = 0;
    free(m->all);
    free(m);
}

void modules_reopen(struct modules *m)
{
    CHECK_OBJ(m, MODULES_MAGIC);
    for (unsigned i = 0; i < m->count; i++)
        if (m->all[i]->reopen) m->all[i]->reopen();
}

/* ---- reading */

unsigned modules_count(const struct modules *m)
{
    CHECK_OBJ(m, MODULES_MAGIC);
    return m->count;
}

const s3p_module *modules_at(const struct modules *m, unsigned i)
{
    CHECK_OBJ(m, MODULES_MAGIC);
    CHECK(i < m->count);
    return m->all[i];
}

int modules_index(const struct modules *m, const s3p_module *mod)
{
    CHECK_OBJ(m, MODULES_MAGIC);
    for (unsigned i = 0; i < m->count; i++)
        if (m->all[i] == mod) return (int)i;
    return -1;
}

const s3p_module *const *modules_access(const struct modules *m)
{
    CHECK_OBJ(m, MODULES_MAGIC);
    return m->access;
}

const s3p_module *const *modules_head_filters(const struct modules *m)
{
    CHECK_OBJ(m, MODULES_MAGIC);
    return m->head_filters;
}

const s3p_module *const *modules_log(const struct modules *m)
{
    CHECK_OBJ(m, MODULES_MAGIC);
    return m->log;
}

const s3p_module *modules_handler(const struct modules *m, const char *name)
{
    CHECK_OBJ(m, MODULES_MAGIC);
    for (unsigned i = 0; name && i < m->count; i++)
        if (m->all[i]->handler_name && strcmp(m->all[i]->handler_name, name) == 0) return m->all[i];
    return NULL;
}
