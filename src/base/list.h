/* list.h - intrusive circular doubly linked list. A node that is in no list points at itself. Not thread-safe. */
#ifndef S3P_BASE_LIST_H
#define S3P_BASE_LIST_H

#include <stdbool.h>

#include "base/check.h"

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }
static inline bool list_linked(const struct list *l) { return l->next != l; }
static inline void list_insert_between(struct list *n, struct list *prev, struct list *next)
{
    n->prev = prev;
    n->next = next;
    prev->next = n;
    next->prev = n;
}
static inline void list_push_back(struct list *head, struct list *n) { list_insert_between(n, head->prev, head); }
static inline void list_push_front(struct list *head, struct list *n) { list_insert_between(n, head, head->next); }
static inline void list_remove(struct list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}
static inline struct list *list_first(const struct list *head) { return list_empty(head) ? NULL : head->next; }
static inline struct list *list_last(const struct list *head) { return list_empty(head) ? NULL : head->prev; }
static inline struct list *list_pop_front(struct list *head)
{
    struct list *n = list_first(head);
    if (n) list_remove(n);
    return n;
}
/* Move all of `from` to the end of `to`; `from` is empty afterwards. */
static inline void list_splice_back(struct list *to, struct list *from)
{
    if (list_empty(from)) return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}
/* `n` may be removed inside the loop body. */
#define LIST_EACH_SAFE(n, tmp, head) \
    for (struct list *n = (head)->next, *tmp = n->next; n != (head); n = tmp, tmp = n->next)

#endif
