/* address.h - bucket and key of a request, and where they go at the origin (S3 User Guide, "Virtual hosting of
 * buckets"). Paths stay raw. */
#ifndef S3P_S3_ADDRESS_H
#define S3P_S3_ADDRESS_H

#include "base/pool.h"

struct s3_address {
    struct str bucket; /* raw; {NULL,0}: service level ("/") */
    struct str key;    /* raw, without the slash after the bucket; n == 0: bucket level */
};
/* Client side. host: Host header without port. base_domains: names under which virtual-hosted requests come in
 * ("s3.local": mybucket.s3.local/key); otherwise path-style. */
void address_from_request(struct str host, struct str raw_path, const char *const *base_domains, unsigned n,
                          struct s3_address *out);
/* Origin side: Host (with non-default port) and raw path. virtual: bucket.endpoint-host, unless the bucket is no DNS label
 * (dots under TLS, upper case, ...): then path style. */
enum err address_to_origin(const struct s3_address *a, bool virtual_hosted, struct str endpoint_host, unsigned port,
                           bool https, struct str prefix, struct pool *pool, struct str *host, struct str *path);

#endif
