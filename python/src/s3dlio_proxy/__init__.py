"""Client of s3dlio-proxy, an edge cache for S3.

    from s3dlio_proxy import Client

    client = Client("http://127.0.0.1:8080")
    data = client.get("s3://bucket/key")
    for uri, data in client.get_many(uris):
        ...

`Client` has everything; `errors` is what it raises. `s3dlio_proxy.fsspec` and `s3dlio_proxy.torch` need the extras of
these names. `python -m s3dlio_proxy` is a small command line.
"""

from . import errors
from ._admin import Mark, WarmJob
from ._files import ObjectReader, ObjectWriter
from ._transport import Retry
from ._types import BucketInfo, CachedObject, ObjectInfo, PutResult, WarmStatus
from ._version import __version__
from .client import Client
from .errors import Error
from .sigv4 import Credentials

__all__ = ["BucketInfo", "CachedObject", "Client", "Credentials", "Error", "Mark", "ObjectInfo", "ObjectReader",
           "ObjectWriter", "PutResult", "Retry", "WarmJob", "WarmStatus", "__version__", "errors"]
