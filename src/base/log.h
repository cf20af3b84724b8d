/* log.h - the error log. Any thread may log; a line is one write(2) of at most 8 KiB, done by a writer thread once
 * log_start_writer was called (so workers never block on a file), directly before that. A full queue (1 MiB) drops
 * lines and says how many. Never pass secrets. */
#ifndef S3P_BASE_LOG_H
#define S3P_BASE_LOG_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* path: "stderr", "stdout", "off" or a file (appended, created 0640). ERR_IO with errno set when it cannot be opened. */
enum err log_open(const char *path, enum log_level level);
enum err log_start_writer(void);
void log_reopen(void); /* SIGUSR1: after a rotation */
void log_close(void);  /* flush, stop the writer */
bool log_enabled(enum log_level level);
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) (log_enabled(LOG_INFO) ? log_line(LOG_INFO, __VA_ARGS__) : (void)0)
#define log_debug(...) (log_enabled(LOG_DEBUG) ? log_line(LOG_DEBUG, __VA_ARGS__) : (void)0)

/* The same machinery for other append-only text (the access log): a queue and a file of its own. */
struct log_file;
enum err log_file_open(const char *path, struct log_file **out);
/* Queue one line (newline included by the caller); dropped and counted when 4 MiB are waiting. Any thread. */
void log_file_write(struct log_file *f, const char *line, size_t n);
void log_file_reopen(struct log_file *f);
void log_file_close(struct log_file *f);

#endif
