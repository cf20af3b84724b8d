/* check.h - assertions for our own bugs, never for input.
 *
 * Long-lived structs carry a magic number; functions that are handed one verify it. A failed check is a bug in
 * this program: it prints where and aborts, because going on could serve wrong bytes. */
#ifndef S3P_BASE_CHECK_H
#define S3P_BASE_CHECK_H

#include <stddef.h>
#include <stdint.h>

_Noreturn void check_failed(const char *what, const char *file, int line);

#define CHECK(cond) ((cond) ? (void)0 : check_failed(#cond, __FILE__, __LINE__))
/* The first member of a checked struct is `uint32_t magic`. */
#define CHECK_OBJ(obj, magic_value) CHECK((obj) != NULL && (obj)->magic == (magic_value))

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#endif
