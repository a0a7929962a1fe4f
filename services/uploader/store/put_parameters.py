"""What every PUT of a store carries, as parameters of botocore's `put_object`. Pure; both S3 clients begin here.

The names of the headers are botocore's own to know: `wire` reads them from a request that botocore has made.
"""

from typing import Any

from services.uploader.store.checksum import Checksum
from services.uploader.store.options import StoreOptions

CONTENT_TYPE = "application/octet-stream"

SUM_PARAMETER = {
    Checksum.MD5: "ContentMD5",
    Checksum.CRC32: "ChecksumCRC32",
    Checksum.SHA256: "ChecksumSHA256",
}
"""The parameter of a PUT that carries a sum, which is also the field of the answer. NONE has none."""


def every_put(options: StoreOptions) -> dict[str, Any]:
    """The parameters that are the same for every object."""
    fields = {
        "Bucket": options.bucket,
        "ContentType": CONTENT_TYPE,
        "ServerSideEncryption": options.sse,
        "SSEKMSKeyId": options.sse_kms_key_id,
        "StorageClass": options.storage_class,
        "Tagging": options.tags,
        "ACL": options.acl,
        "IfNoneMatch": "*" if options.create_only else None,
    }
    return {name: value for name, value in fields.items() if value}
