/* builtin.c - the table of modules linked into this program. A module knows the proxy only through
 * s3p_module.h, so one that is loaded from a shared object later differs in nothing but how its struct is
 * found. */
#include "module/builtin.h"

#include <stddef.h>

extern const s3p_module s3p_admin_module, s3p_access_log_module;

const s3p_module *const builtin_modules[] = {
    &s3p_admin_module,
    &s3p_access_log_module,
    NULL,
};
