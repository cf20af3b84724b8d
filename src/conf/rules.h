/* rules.h - what must fit together, after every value by itself was found good. */
#ifndef S3P_CONF_RULES_H
#define S3P_CONF_RULES_H

#include "conf/decode.h"

/* Reports into the decoder; also rounds part sizes up to whole slices and notes where handlers were named. */
void rules_check(struct decoder *d);

#endif
