/* lines.h - the lines of a file, a pipe or a terminal, as they come: whoever writes them may take his time, and what was read
 * is worked on meanwhile. Main thread only. */
#ifndef S3P_CLI_LINES_H
#define S3P_CLI_LINES_H

#include "base/err.h"
#include "base/str.h"

#define LINES_MAX_BYTES ((size_t)64 << 10) /* of a line */

struct loop;
struct lines;
/* path "-": standard input. more is called from the loop when a lines_next that said ERR_AGAIN may say something else.
 * 0 or errno. */
int lines_open(struct loop *loop, const char *path, void (*more)(void *arg), void *arg, struct lines **out);
void lines_close(struct lines *l); /* NULL is fine */
/* ERR_OK: *line, without its end ("\n" or "\r\n"), NUL-terminated, is good until the next call. ERR_AGAIN. ERR_END. ERR_IO:
 * errno says why; EMSGSIZE: a line is too long. */
enum err lines_next(struct lines *l, struct str *line);

#endif
