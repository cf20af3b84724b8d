/* builtin.h - the modules linked into this program. */
#ifndef S3P_MODULE_BUILTIN_H
#define S3P_MODULE_BUILTIN_H

#include "module/s3p_module.h"

/* NULL-terminated; their init runs in this order. */
extern const s3p_module *const builtin_modules[];

#endif
