/* slots.h - how many connections an origin may have open, counted over all workers, and who gets the next one.
 *
 * A worker's pool takes a slot before it connects and releases it when the connection is gone. When all are taken the
 * worker stands in line: every slot that is released goes to the first in line at once (it stays counted, so nobody can
 * snatch it), and those who hold idle connections are asked, through their mailboxes, to give them up. */
#ifndef S3P_ORIGIN_SLOTS_H
#define S3P_ORIGIN_SLOTS_H

#include "io/mailbox.h"

struct slots;       /* one per origin */
struct slot_member; /* one worker's part in it */
typedef void slots_wake_fn(void *arg);

enum err slots_create(uint64_t max, unsigned nworkers, struct slots **out);
void slots_destroy(struct slots *s); /* everyone has left */
uint64_t slots_open_any_thread(const struct slots *s);

/* All else belongs to the worker's thread. wake: slots were granted (collect them), or spare connections are wanted. */
struct slot_member *slots_join(struct slots *s, unsigned index, struct mailbox *mb, slots_wake_fn *wake, void *arg);
/* Steps out of the line for good, giving back what was granted. False: a mail is on its way and wake will be called once
 * more; ask again then. True: gone, wake is never called again. */
bool slots_leave(struct slot_member *m);

bool slots_acquire(struct slot_member *m);     /* false: all taken, m now stands in line */
unsigned slots_collect(struct slot_member *m); /* how many were granted since the last time; they are m's now */
void slots_step_out(struct slot_member *m);    /* needs no more; granted ones may still be on their way */
void slots_release(struct slot_member *m);
void slots_release_to_other(struct slot_member *m); /* not to m, even if it is first in line */

/* What m could give up at once. Set it after every change, and look at slots_others_wait afterwards: of the two, this
 * store and another's stepping into line, at least one sees the other. */
void slots_spare_set(struct slot_member *m, unsigned spare);
bool slots_others_wait(struct slot_member *m);
/* Another worker has stood in line so long that m should not go on using a freed connection for its own calls. */
bool slots_must_yield(struct slot_member *m);

#endif
