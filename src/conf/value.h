/* value.h - the kinds of values a directive can have: a method table each, to read the text of a scalar into a field of a
 * configuration struct, to write it back, to free it. Which field, which bounds, which words is the directive's row. */
#ifndef S3P_CONF_VALUE_H
#define S3P_CONF_VALUE_H

#include "base/str.h"

struct conf;
struct directive;

struct value_type {
    const char *name;    /* in the help: "size" */
    const char *expects; /* in messages: "a size such as 512KiB or 4GiB" */
    size_t size;         /* of the field, so that lists can be made of it */
    bool secret;         /* never in a message, masked in the dump */
    bool number;         /* the row's min and max bound it */
    bool later;          /* no value is supported yet */
    /* Before anything is read into a field (which is zeroed); NULL: nothing to do. */
    void (*init)(void *field);
    /* Replaces the field's value; on failure the old one stays. ERR_CONFIG with `why` filled or left empty ("'x', expected
     * <expects>" is said then); ERR_NOMEM. c is the configuration as far as it is read: names can be looked up. */
    enum err (*parse)(const struct conf *c, const struct directive *row, struct str text, void *field, char *why,
                      size_t n);
    /* The value as text that parse would take; false when it has none. */
    bool (*format)(const struct conf *c, const struct directive *row, const void *field, struct strbuf *out);
    void (*clear)(void *field); /* frees what parse made; NULL: nothing */
};

extern const struct value_type value_count;    /* uint64_t */
extern const struct value_type value_size;     /* uint64_t, bytes */
extern const struct value_type value_duration; /* uint64_t, ms */
extern const struct value_type value_workers;  /* unsigned; "auto" */
extern const struct value_type value_bool;     /* bool */
extern const struct value_type value_word;     /* any C enum: the row's words in the order of the enum */
extern const struct value_type value_flag;     /* bool: the row's two words, the second is true */
extern const struct value_type value_fixed;  /* no field: the row's words, of which the first is all there is so far */
extern const struct value_type value_later;  /* no field: known, but no value is supported yet */
extern const struct value_type value_string; /* char *; min and max of the row are lengths */
extern const struct value_type value_secret; /* char * */
extern const struct value_type value_name;   /* char *: letters, digits, - _ . */
extern const struct value_type value_path;   /* char *: of a URL */
extern const struct value_type value_host;   /* char *: name.example.com or *.example.com, lower case */
extern const struct value_type value_domain; /* char *: name.example.com, lower case */
extern const struct value_type value_authority; /* char *: host[:port] */
extern const struct value_type value_method;    /* char * */
extern const struct value_type value_endpoint;  /* struct endpoint; unset: empty host */
extern const struct value_type value_cidr;      /* struct cidr */
extern const struct value_type value_address;   /* struct listen_conf */
extern const struct value_type value_origin;    /* int: index, -1 none */
extern const struct value_type value_cache;     /* int: index, -1 none */

/* What stands for a secret in the dump. */
#define VALUE_MASK "********"

bool name_valid(struct str s); /* of a cache, origin or handler: 1 to 64 of letters, digits, - _ . */
/* The number of a row's word list, or -1; the i-th word. */
int words_find(const char *words, struct str word);
struct str words_at(const char *words, unsigned i);

#endif
