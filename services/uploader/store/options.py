"""What every object of a store has in common: where it goes and the headers of its PUT. A value, made once.

The settings are checked where they are read (`services.uploader.settings`); nothing is checked again here.
"""

from dataclasses import dataclass

from services.uploader.settings import UploaderSettings
from services.uploader.store.checksum import Checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """Options of a store, whichever its client.

    Attributes:
        bucket: where the objects go.
        endpoint_url: an S3-compatible server; None is AWS.
        path_style: True for path-style addressing, False for virtual hosts, None for the client's own choice.
        region: the bucket's region; None leaves it to AWS's own variables and files.
        sse: `AES256`, `aws:kms` or `aws:kms:dsse`; None leaves encryption to the bucket.
        sse_kms_key_id: the key, with `aws:kms` and `aws:kms:dsse`; None is the account's own.
        storage_class: None is the bucket's default.
        tags: as the header wants them, `a=b&c=d` percent-encoded.
        acl: a canned ACL; None sends none, which most buckets demand today.
        create_only: never overwrite (`If-None-Match: *`).
        checksum: the sum sent with each PUT and compared with the answer.
        connections_max: at least the puts that may run at once.

    """

    bucket: str
    endpoint_url: str | None = None
    path_style: bool | None = None
    region: str | None = None
    sse: str | None = None
    sse_kms_key_id: str | None = None
    storage_class: str | None = None
    tags: str | None = None
    acl: str | None = None
    create_only: bool = False
    checksum: Checksum = Checksum.MD5
    connections_max: int = 64

    @classmethod
    def of(cls, settings: UploaderSettings, connections_max: int) -> "StoreOptions":
        """The options that the settings ask for."""
        return cls(
            bucket=settings.s3_bucket,
            endpoint_url=settings.s3_endpoint_url,
            path_style=settings.path_style,
            region=settings.aws_region,
            sse=settings.s3_sse,
            sse_kms_key_id=settings.s3_sse_kms_key_id,
            storage_class=settings.s3_storage_class,
            tags=settings.s3_tags,
            acl=settings.s3_acl,
            create_only=settings.s3_create_only,
            checksum=Checksum(settings.s3_checksum),
            connections_max=connections_max,
        )
