/* front.h - a worker's side to clients: listeners, TLS, protocols. Its state stands in struct worker. */
#ifndef S3P_PROXY_FRONT_H
#define S3P_PROXY_FRONT_H

#include "http/h2_server.h"
#include "http/sniff.h"
#include "io/tls_accept.h"
#include "proxy/listen_tls.h"
#include "proxy/proxy.h"

/* Main thread: the servers of w and its bound sockets. A failure's reason goes to msg as one line. */
enum err front_create(struct worker *w, char *msg, size_t n);
enum err front_open(struct worker *w);                       /* worker's thread: accepts from now on */
void front_drain(struct worker *w, void (*done)(void *arg)); /* done(w) once no connection is left */
void front_kill(struct worker *w);                           /* ends those that are left */
void front_destroy(struct worker *w);
/* Sum over the acceptors of a counter, by its offset in struct tls_acceptor_stats. Any thread. */
uint64_t front_tls_stat(const struct worker *w, size_t offset);

unsigned conf_listens(const struct conf *c); /* listen addresses of all servers */
/* The TLS contexts of a configuration, one for each listen address in order, NULL where it is cleartext. Blocks. */
enum err front_tls_create(const struct conf *c, struct listen_tls ***out, char *msg, size_t n);
void front_tls_destroy(struct listen_tls **all, unsigned n);
void front_tls_reload(struct listen_tls **all, unsigned n); /* failures are logged, the old stay */

#endif
