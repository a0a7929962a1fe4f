"""Settings of the uploader: environment variables, named as DESIGN §5 fixes them."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from services.uploader.keys import DEFAULT_TEMPLATE, KeyTemplate
from shared.kafka import KafkaSettings
from shared.record import is_safe_folder

COMMIT_TIMEOUT_S = 3.0
"""One offset commit, in seconds. Within a revoke it follows the drain: both together stay below the rebalance."""


class UploaderSettings(KafkaSettings):
    """Variables of `spillway-uploader run`, beside the KAFKA_* ones."""

    kafka_group_id: str = Field(
        default="spillway-uploader", min_length=1, description="Consumer group of the uploaders"
    )
    s3_bucket: str = Field(description="Bucket that the objects go to", min_length=3, max_length=63)
    s3_endpoint_url: str | None = Field(default=None, description="S3-compatible server; absent: AWS")
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="How a bucket is addressed; auto: path style where S3_ENDPOINT_URL is set"
    )
    s3_client: Literal["aiobotocore"] = Field(default="aiobotocore", description="S3 client that writes the objects")
    s3_folder: str = Field(default="payloads", description="`{folder}` of records that carry none")
    s3_key_template: str = Field(default=DEFAULT_TEMPLATE, description="Template of the object keys")
    uploader_ops_host: str = Field(default="0.0.0.0", description="Address of /livez /readyz /metrics")
    uploader_ops_port: int = Field(default=8081, ge=0, le=65535, description="Port of /livez /readyz /metrics")
    max_workers: int = Field(default=16, ge=1, le=4096, description="Uploads in flight per partition")
    max_uploads: int = Field(
        default=512, ge=1, le=4096, description="Uploads in flight of the process at most; the adaptive limit is below"
    )
    max_queue: int = Field(default=1000, ge=2, le=1_000_000, description="Payloads buffered per partition")
    max_buffer_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1, description="Payload bytes buffered over all partitions before polling waits"
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

    @field_validator("s3_key_template")
    @classmethod
    def _template(cls, value: str) -> str:
        KeyTemplate(value, "payloads")
        return value

    @model_validator(mode="after")
    def _coupled(self) -> "UploaderSettings":
        # JoinGroup waits as long as the slowest member drains; a request shorter than that marks the coordinator dead.
        # Two commits: the clock's, which may be under way, and the revoke's own.
        if not self.drain_timeout_s + 2 * COMMIT_TIMEOUT_S < self.kafka_rebalance_timeout_s:
            raise ValueError(
                f"DRAIN_TIMEOUT_S={self.drain_timeout_s:g} plus two commits of {COMMIT_TIMEOUT_S:g} s must be less "
                f"than KAFKA_REBALANCE_TIMEOUT_S={self.kafka_rebalance_timeout_s:g}"
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
