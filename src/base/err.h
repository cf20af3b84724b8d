/* err.h - the one set of result codes.
 *
 * Functions return `enum err` and give results through out-parameters. Each code carries a text for logs, the
 * HTTP status and the S3 error code a client sees when the request ends with it before the response head is out
 * (Amazon S3 API Reference, "Error responses"). */
#ifndef S3P_BASE_ERR_H
#define S3P_BASE_ERR_H

/* X(name, text, HTTP status, S3 code) */
#define ERR_TABLE(X)                                                                         \
    X(OK, "success", 200, "")                                                                \
    X(AGAIN, "not ready yet", 500, "InternalError")                                          \
    X(END, "end of data", 500, "InternalError")                                              \
    X(NOMEM, "out of memory", 503, "SlowDown")                                               \
    X(IO, "input/output error", 500, "InternalError")                                        \
    X(INTERNAL, "internal error", 500, "InternalError")                                      \
    X(CANCELLED, "cancelled", 500, "InternalError")                                          \
    /* the other side of a connection */                                                     \
    X(CLOSED, "connection closed by the origin", 502, "BadGateway")                          \
    X(RESET, "connection reset by the origin", 502, "BadGateway")                            \
    X(REFUSED, "connection to the origin refused", 502, "BadGateway")                        \
    X(UNREACHABLE, "origin unreachable", 502, "BadGateway")                                  \
    X(DNS, "origin name could not be resolved", 502, "BadGateway")                           \
    X(TLS, "TLS with the origin failed", 502, "BadGateway")                                  \
    X(PROTOCOL, "malformed response from the origin", 502, "BadGateway")                     \
    X(TRUNCATED, "response body of the origin cut short", 502, "BadGateway")                 \
    X(CHANGED, "object changed at the origin while it was read", 503, "ServiceUnavailable")  \
    X(CREDENTIALS, "no usable credentials for the origin", 502, "BadGateway")                \
    X(CONNECT_TIMEOUT, "connecting to the origin timed out", 504, "GatewayTimeout")          \
    X(FIRST_BYTE_TIMEOUT, "origin sent no response in time", 504, "GatewayTimeout")          \
    X(STALL_TIMEOUT, "origin stalled while sending", 504, "GatewayTimeout")                  \
    X(OPERATION_TIMEOUT, "operation at the origin took too long", 504, "GatewayTimeout")     \
    X(OVERLOAD, "Please reduce your request rate.", 503, "SlowDown")                         \
    X(UNAVAILABLE, "Service is unable to handle request.", 503, "ServiceUnavailable")        \
    /* what a client can do wrong */                                                         \
    X(BAD_REQUEST, "The request is malformed.", 400, "InvalidRequest")                       \
    X(BAD_URI, "Couldn't parse the specified URI.", 400, "InvalidURI")                       \
    X(BAD_CHUNK, "The chunked request body is malformed.", 400, "InvalidRequest")            \
    X(INCOMPLETE_BODY, "The request body terminated unexpectedly.", 400, "IncompleteBody")   \
    X(ACCESS_DENIED, "Access Denied", 403, "AccessDenied")                                   \
    X(SIGNATURE, "The request signature we calculated does not match the signature you provided.", 403, \
      "SignatureDoesNotMatch")                                                               \
    X(NOT_FOUND, "The specified key does not exist.", 404, "NoSuchKey")                      \
    X(NO_BUCKET, "The specified bucket does not exist.", 404, "NoSuchBucket")                \
    X(METHOD_NOT_ALLOWED, "The specified method is not allowed against this resource.", 405, \
      "MethodNotAllowed")                                                                    \
    X(REQUEST_TIMEOUT, "The client did not send the request in time.", 408, "RequestTimeout") \
    X(LENGTH_REQUIRED, "You must provide the Content-Length HTTP header.", 411, "MissingContentLength") \
    X(PRECONDITION, "At least one of the preconditions you specified did not hold.", 412,    \
      "PreconditionFailed")                                                                  \
    X(BODY_TOO_LARGE, "Your proposed upload exceeds the maximum allowed size.", 413, "EntityTooLarge") \
    X(URI_TOO_LONG, "The request target is too long.", 414, "KeyTooLongError")               \
    X(RANGE, "The requested range is not satisfiable", 416, "InvalidRange")                  \
    X(EXPECTATION, "The expectation cannot be met.", 417, "InvalidRequest")                  \
    X(HEAD_TOO_LARGE, "The request header section is too large.", 431, "RequestHeaderSectionTooLarge") \
    X(NOT_IMPLEMENTED, "A header or method you provided implies functionality that is not implemented.", \
      501, "NotImplemented")                                                                 \
    X(VERSION, "HTTP version not supported.", 505, "InvalidRequest")                         \
    /* start-up */                                                                           \
    X(CONFIG, "configuration error", 500, "InternalError")                                   \
    X(NOT_SUPPORTED, "not supported", 501, "NotImplemented")

enum err {
#define X(name, text, status, code) ERR_##name,
    ERR_TABLE(X)
#undef X
};

const char *err_name(enum err e);    /* "FIRST_BYTE_TIMEOUT" */
const char *err_text(enum err e);    /* one sentence */
unsigned err_status(enum err e);     /* HTTP status */
const char *err_s3_code(enum err e); /* S3 error code */

#endif
