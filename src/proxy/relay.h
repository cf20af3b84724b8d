/* relay.h - a bounded ring of bytes between an origin's call and a client: for everything that is not cached. Backpressure
 * both ways: the origin is read only while there is room. One worker. */
#ifndef S3P_PROXY_RELAY_H
#define S3P_PROXY_RELAY_H

#include "proxy/proxy.h"

struct relay;
struct relay *relay_create(size_t capacity);
/* Where bytes from the call go; events of this relay, arg = the relay. Head events must have come before. */
extern const struct client_events relay_events;
void relay_set_call(struct relay *y, struct upcall *call);
/* before: called before anybody hears of new bytes (ERR_AGAIN) or of the end (ERR_OK, or what broke). */
void relay_watch(struct relay *y, void (*before)(void *arg, enum err what), void *arg);
/* The body to answer with; told by body_notify when bytes or the end have come. */
struct body *relay_body(struct relay *y, int64_t length);
uint64_t relay_received(const struct relay *y);
/* Cancels the call if it is still under way. Chunks given out stay valid until released. */
void relay_destroy(struct relay *y);

#endif
