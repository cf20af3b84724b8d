/* paths.h - keys as paths below a directory, and patterns. */
#ifndef S3P_CLI_PATHS_H
#define S3P_CLI_PATHS_H

#include "base/str.h"

/* NULL: the key may stand as a path below a directory. Else why not: an empty segment, ".", "..", a leading slash, a NUL. */
const char *path_objection(struct str key);
/* Shell patterns: '*' and '?' stop at '/', "**" does not, [a-z], [!a-z] or [^a-z], a backslash takes away the next one's meaning.
 * deep: '*' crosses '/' as well. Bounded work: |pattern| x |text|. */
bool path_match(struct str pattern, struct str text, bool deep);
/* What stands behind the last '/'. */
struct str path_base(struct str path);
/* True: two of the n operands have the same last part and would be the same WHAT ("file"), which has been told. As fast as
 * sorting: a shell may hand over tens of thousands. */
bool paths_collide(char **operands, int n, const char *what);
/* Up to and with the last '/'; may be empty. */
struct str path_dir(struct str path);

#endif
