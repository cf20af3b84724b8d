/* error_xml.h - S3's error documents (Amazon S3 API Reference, "REST error responses"). */
#ifndef S3P_S3_ERROR_XML_H
#define S3P_S3_ERROR_XML_H

#include "base/str.h"

/* <?xml ...?><Error><Code/><Message/><Resource/><RequestId/><HostId/></Error>, escaped. */
enum err error_xml_build(struct strbuf *out, const char *code, const char *message, struct str resource,
                         struct str request_id);
/* <Code> of such a document, unescaped as it stands; {NULL,0} when there is none. */
struct str error_xml_code(struct str document);

/* Text of an element in any of S3's documents: escaped, what XML 1.0 cannot hold replaced. */
void xml_text(struct strbuf *out, struct str s);

#endif
