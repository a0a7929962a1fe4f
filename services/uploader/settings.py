"""Settings of the uploader: environment variables, named as DESIGN §5 fixes them."""

import re
from typing import Literal
from urllib.parse import parse_qsl, quote, urlencode

from pydantic import Field, field_validator, model_validator

from services.uploader.keys import DEFAULT_TEMPLATE, KeyTemplate
from shared.kafka import KafkaSettings
from shared.record import is_safe_folder

COMMIT_TIMEOUT_S = 3.0
"""One offset commit, in seconds. Within a revoke it follows the drain: both together stay below the rebalance."""

CannedAcl = Literal[
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
]
STORAGE_CLASSES = (
    "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE",
    "REDUCED_REDUNDANCY", "EXPRESS_ONEZONE", "OUTPOSTS", "SNOW",
)  # fmt: skip
"""AWS's own (API Reference, PutObject); another maker's server may have others."""

_TAGS_MAX, _TAG_KEY_MAX, _TAG_VALUE_MAX = 10, 128, 256  # S3 User Guide, "Categorizing your objects using tags"


def tagging(text: str) -> str:
    """`a=b&c=d` as the header x-amz-tagging wants it.

    Raises:
        ValueError: S3 would refuse it, and says why.

    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise ValueError("not of the form a=b&c=d, percent-encoded") from None
    if len(pairs) > _TAGS_MAX:
        raise ValueError(f"{len(pairs)} tags; an object has at most {_TAGS_MAX}")
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a tag stands there twice")
    for key, value in pairs:
        if not 1 <= len(key) <= _TAG_KEY_MAX or len(value) > _TAG_VALUE_MAX:
            raise ValueError(f"tag {key!r}: a key has 1 to {_TAG_KEY_MAX} characters, a value at most {_TAG_VALUE_MAX}")
        if key.lower().startswith("aws:"):
            raise ValueError(f"tag {key!r}: keys that begin with aws: are AWS's own")
        if not all(char.isalnum() or char in " +-=._:/@" for char in key + value):
            raise ValueError(f"tag {key!r}: only letters, digits, spaces and + - = . _ : / @")
    return urlencode(pairs, quote_via=quote)


LOOKS_S = 4.0
"""Two looks of the watch, in seconds: so much later than a commit it may see it."""


class GroupSettings(KafkaSettings):
    """The variables of whoever looks at the uploaders' group."""

    kafka_group_id: str = Field(
        default="spillway-uploader", min_length=1, description="Consumer group of the uploaders"
    )


class UploaderSettings(GroupSettings):
    """Variables of `spillway-uploader run`, beside the KAFKA_* ones."""

    s3_bucket: str = Field(description="Bucket that the objects go to", min_length=3, max_length=63)
    s3_endpoint_url: str | None = Field(default=None, description="S3-compatible server; absent: AWS")
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="How a bucket is addressed; auto: path style where S3_ENDPOINT_URL is set"
    )
    s3_client: Literal["aiobotocore", "wire"] = Field(
        default="aiobotocore",
        description="S3 client that writes the objects; `wire` is the fast one, and serves no proxy",
    )
    aws_region: str | None = Field(
        default=None,
        description="Region of the bucket; absent: AWS_DEFAULT_REGION or the profile's",
        pattern=r"^[a-z0-9-]+$",
    )
    s3_sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None, description="Encryption asked for with each object; absent: the bucket's default"
    )
    s3_sse_kms_key_id: str | None = Field(default=None, description="KMS key of S3_SSE=aws:kms; absent: the account's")
    s3_storage_class: str | None = Field(default=None, description="Storage class; absent: the bucket's default")
    s3_tags: str | None = Field(default=None, description="Tags of each object, `a=b&c=d`, at most 10")
    s3_acl: CannedAcl | None = Field(default=None, description="Canned ACL; most buckets refuse any")
    s3_create_only: bool = Field(
        default=False, description="Never overwrite an object; another body at a key is a dead letter (`conflict`)"
    )
    s3_checksum: Literal["md5", "crc32", "sha256", "none"] = Field(
        default="md5", description="Sum sent with each object and compared with S3's answer; md5: with the ETag"
    )
    s3_folder: str = Field(default="payloads", description="`{folder}` of records that carry none")
    s3_key_template: str = Field(default=DEFAULT_TEMPLATE, description="Template of the object keys")
    uploader_ops_host: str = Field(
        default="0.0.0.0", description="Address of the status page, /livez, /readyz, /metrics"
    )
    uploader_ops_port: int = Field(default=8081, ge=0, le=65535, description="Their port; 0 takes any free one")
    max_workers: int = Field(default=16, ge=1, le=4096, description="Uploads in flight per partition")
    max_uploads: int = Field(
        default=512, ge=1, le=4096, description="Uploads in flight of the process at most; the adaptive limit is below"
    )
    max_queue: int = Field(default=1000, ge=2, le=1_000_000, description="Payloads buffered per partition")
    max_buffer_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=1,
        description="Bytes of records in memory, overhead counted: half for whoever comes first, half in equal shares",
    )
    commit_interval_s: float = Field(default=1.0, gt=0, le=60, description="Seconds between offset commits")
    commit_records: int = Field(default=5000, ge=1, description="Stored records after which a commit comes early")
    stalled_after_s: float = Field(
        default=60.0,
        ge=10,
        description="Seconds without progress until a partition is named, and a wedged client replaced",
    )
    dead_letter_share_max: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Largest share of dead letters among the last 1000 records; 0: none is ever written, 1: no limit",
    )
    drain_timeout_s: float = Field(default=5.0, gt=0, description="Seconds that uploads on the wire get on a revoke")
    kafka_rebalance_timeout_s: float = Field(default=12.0, gt=0, description="Seconds a group member has to rejoin")
    kafka_session_timeout_s: float = Field(default=10.0, ge=6, description="Seconds until a silent member is evicted")
    kafka_request_timeout_s: float = Field(default=15.0, gt=0, description="Seconds of one Kafka request")

    @field_validator("s3_folder")
    @classmethod
    def _folder(cls, value: str) -> str:
        if not is_safe_folder(value):
            raise ValueError("only A-Z a-z 0-9 . _ = - and single / between segments")
        return value

    @field_validator("s3_endpoint_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s]+/?", value):
            raise ValueError("not of the form http://host:port or https://host:port")
        return value

    @field_validator("s3_tags")
    @classmethod
    def _tags(cls, value: str | None) -> str | None:
        return value and tagging(value)

    @field_validator("s3_key_template")
    @classmethod
    def _template(cls, value: str) -> str:
        KeyTemplate(value, "payloads")
        return value

    @model_validator(mode="after")
    def _storable(self) -> "UploaderSettings":
        if self.s3_sse_kms_key_id is not None and self.s3_sse not in ("aws:kms", "aws:kms:dsse"):
            raise ValueError("S3_SSE_KMS_KEY_ID needs S3_SSE=aws:kms or aws:kms:dsse")
        known = "[A-Za-z0-9_-]{1,64}" if self.s3_endpoint_url else "|".join(STORAGE_CLASSES)
        if self.s3_storage_class is not None and not re.fullmatch(known, self.s3_storage_class):
            raise ValueError(f"S3_STORAGE_CLASS={self.s3_storage_class} is none of {', '.join(STORAGE_CLASSES)}")
        return self

    @model_validator(mode="after")
    def _coupled(self) -> "UploaderSettings":
        # JoinGroup waits as long as the slowest member drains; a request shorter than that marks the coordinator dead.
        # Two commits: the clock's, which may be under way, and the revoke's own.
        if not self.drain_timeout_s + 2 * COMMIT_TIMEOUT_S < self.kafka_rebalance_timeout_s:
            raise ValueError(
                f"DRAIN_TIMEOUT_S={self.drain_timeout_s:g} plus two commits of {COMMIT_TIMEOUT_S:g} s must be less "
                f"than KAFKA_REBALANCE_TIMEOUT_S={self.kafka_rebalance_timeout_s:g}"
            )
        if not self.commit_interval_s + 2 * COMMIT_TIMEOUT_S + LOOKS_S < self.stalled_after_s:
            raise ValueError(
                f"COMMIT_INTERVAL_S={self.commit_interval_s:g} plus {2 * COMMIT_TIMEOUT_S + LOOKS_S:g} s must be less "
                f"than STALLED_AFTER_S={self.stalled_after_s:g}, or a healthy client would be taken for a wedged one"
            )
        if not self.kafka_rebalance_timeout_s < self.kafka_request_timeout_s:
            raise ValueError(
                f"KAFKA_REBALANCE_TIMEOUT_S={self.kafka_rebalance_timeout_s:g} must be less than "
                f"KAFKA_REQUEST_TIMEOUT_S={self.kafka_request_timeout_s:g}"
            )
        return self

    @property
    def path_style(self) -> bool | None:
        """True: path style; False: virtual hosts; None: the client's own choice."""
        if self.s3_addressing_style == "auto":
            return True if self.s3_endpoint_url else None
        return self.s3_addressing_style == "path"
