/* module.h - the modules of this process: which there are, and their hooks sorted into phases. Built-in ones come from a
 * table; the order of hooks in a phase is by `order`, then by name. Immutable after modules_create. */
#ifndef S3P_MODULE_MODULE_H
#define S3P_MODULE_MODULE_H

#include "base/err.h"
#include "module/s3p_module.h"

struct modules;
/* Checks ABI versions and names, calls every init. A failure's reason goes to msg. */
enum err modules_create(const s3p_api *api, struct modules **out, char *msg, size_t n);
void modules_destroy(struct modules *m); /* calls exit, last first */
void modules_reopen(struct modules *m);
unsigned modules_count(const struct modules *m);
const s3p_module *modules_at(const struct modules *m, unsigned i);
int modules_index(const struct modules *m, const s3p_module *mod); /* -1 */
/* Sorted; NULL-terminated arrays. */
const s3p_module *const *modules_access(const struct modules *m);
const s3p_module *const *modules_head_filters(const struct modules *m);
const s3p_module *const *modules_log(const struct modules *m);
const s3p_module *modules_handler(const struct modules *m, const char *name); /* NULL: none of that name */

#endif
