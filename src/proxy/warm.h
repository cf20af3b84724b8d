/* warm.h - jobs that read objects into the caches, see warm.c. Texts are malloc'ed, NULL when out of memory. */
#ifndef S3P_PROXY_WARM_H
#define S3P_PROXY_WARM_H

#include "proxy/proxy.h"

/* One of paths, prefix, manifest; paths as clients send them ("/bucket/key", "/bucket/prefix"). */
struct warm_what {
    const struct str *paths;
    size_t npaths;
    struct str prefix;
    struct str manifest; /* of an object with a URI on each line */
    bool pin;
    unsigned concurrency; /* at least 1 */
};
enum err warm_jobs_create(uint64_t max, struct warm_jobs **out);
void warm_jobs_destroy(struct warm_jobs *all); /* the workers have ended */
/* On r's worker, with the rights of r's client; goes on when r ends. ERR_OVERLOAD: there are too many. *json: {"id"}. */
enum err warm_start(struct request *r, const struct warm_what *what, char **json);
enum err warm_json(struct proxy *p, struct str id, char **json);   /* any thread; ERR_NOT_FOUND */
enum err warm_cancel(struct proxy *p, struct str id, char **json); /* any thread; what it is then */
char *warm_list_json(struct proxy *p);
void warm_worker_stop(struct worker *w); /* the worker ends */

#endif
