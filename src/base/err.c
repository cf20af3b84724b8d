/* err.c - the texts of the result codes, made from the one table in err.h. */
#include "base/err.h"

#include "base/check.h"

struct err_row {
    const char *name, *text, *s3_code;
    unsigned status;
};

static const struct err_row rows[] = {
#define X(name, text, status, code) {#name, text, code, status},
    ERR_TABLE(X)
#undef X
};

static const struct err_row *err_row(enum err e)
{
    CHECK((size_t)e < ARRAY_LEN(rows));
    return &rows[e];
}

const char *err_name(enum err e)
{
    return err_row(e)->name;
}

const char *err_text(enum err e)
{
    return err_row(e)->text;
}

unsigned err_status(enum err e)
{
    return err_row(e)->status;
}

const char *err_s3_code(enum err e)
{
    return err_row(e)->s3_code;
}
