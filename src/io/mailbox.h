/* mailbox.h - the only way from one thread into another's loop.
 *
 * Any thread posts a mail (caller-owned memory that must live until it was delivered); the loop's thread calls its
 * function. The eventfd is written only when the queue was empty. Order per poster is kept. A mail may be re-posted
 * from its own delivery. Posting to the mailbox of the own thread takes the same way without the eventfd. */
#ifndef S3P_IO_MAILBOX_H
#define S3P_IO_MAILBOX_H

#include "io/loop.h"

struct mailbox;
struct mail;
typedef void mail_fn(struct mail *m);
struct mail {
    struct mail *next;
    mail_fn *fn;
};

enum err mailbox_create(struct loop *l, struct mailbox **out);
/* Delivers nothing any more; mails still queued are returned to their functions first. Owner thread, at shutdown. */
void mailbox_destroy(struct mailbox *mb);
void mailbox_post_any_thread(struct mailbox *mb, struct mail *m);
struct loop *mailbox_loop(struct mailbox *mb);

#endif
