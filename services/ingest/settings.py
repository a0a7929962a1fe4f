"""The variables of tier 1. Every field's description becomes its row in README's table."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from shared.kafka import REQUEST_TIMEOUT_S, KafkaSettings
from shared.record import is_safe_folder

MIB = 1024 * 1024


class IngestSettings(KafkaSettings):
    """What `spillway-ingest` reads from the environment."""

    ingest_host: str = Field(default="0.0.0.0", description="Address that `/v1/collections` listens on")
    ingest_port: int = Field(default=8080, ge=0, le=65535, description="Its port; 0 takes any free one")
    ingest_workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that share INGEST_PORT; MAX_* bounds are each one's own, token quotas hold for all",
    )
    ingest_ops_host: str = Field(default="0.0.0.0", description="Address of `/livez`, `/readyz` and `/metrics`")
    ingest_ops_port: int = Field(default=8082, ge=0, le=65535, description="Their port; 0 takes any free one")
    ingest_tokens_file: str | None = Field(
        default=None, description="JSON file of the tokens that are let in; without it any token is, and none"
    )
    token_burst_s: float = Field(
        default=2, gt=0, description="Seconds of its quota that a token may spend at once (its bucket's size)"
    )
    s3_folder: str = Field(
        default="payloads", description="First part of the S3 key of every payload whose token names no other"
    )
    max_connections: int = Field(
        default=4096,
        ge=1,
        description="Open connections; past it a silent one is closed, else the longest idle, else the new one",
    )
    max_head_bytes: int = Field(default=32 * 1024, ge=1024, description="Largest head of a request: line and headers")
    head_deadline_s: float = Field(
        default=10, gt=0, description="Seconds from a request's first byte to its head's last, else 408"
    )
    keep_alive_s: int = Field(
        default=75,
        ge=1,
        description="Seconds that a connection may be idle; above the load balancer's own, or it meets a closed one",
    )
    max_body_bytes: int = Field(
        default=16 * MIB,
        ge=1024,
        description="Largest request body, as sent and also once decompressed (the seed's MaxLength)",
    )
    max_items: int = Field(default=10_000, ge=1, description="Most payloads in one collection")
    max_in_flight_bytes: int = Field(
        default=64 * MIB, description="Memory of collections not yet answered, all requests together; past it 503"
    )
    max_partition_queue_bytes: int = Field(
        default=32 * MIB, description="Records that wait for one partition's writer; past it 503"
    )
    body_deadline_s: float = Field(
        default=30,
        gt=0,
        description="Seconds from a request's head to its body's last byte, else 408; up to a tenth later, by chance",
    )
    http_deadline_s: float = Field(
        default=10, gt=0, description="Seconds from a collection's last byte to its answer, 504 if need be"
    )
    kafka_compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = Field(
        default="none",
        description="How batches are packed; zstd takes three quarters off disks and network for some CPU",
    )
    kafka_produce_timeout_s: float = Field(
        default=REQUEST_TIMEOUT_S, ge=0.1, description="Seconds of one produce request; below HTTP_DEADLINE_S"
    )
    kafka_away_after_s: float = Field(
        default=2, gt=0, description="Seconds without an answer of any broker until collections are refused at once"
    )
    kafka_replace_after_s: float = Field(
        default=15, gt=0, description="Seconds without an answer of any broker until the producer is replaced"
    )
    kafka_topic_check_s: float = Field(
        default=3600, gt=0, description="Seconds between two looks at the topic's configuration"
    )
    ingest_drain_delay_s: float = Field(
        default=2, ge=0, description="Seconds that ingest serves on, not ready, after SIGTERM"
    )

    @field_validator("s3_folder")
    @classmethod
    def _safe_folder(cls, value: str) -> str:
        if not is_safe_folder(value):
            raise ValueError("must be `/`-parted names of A-Z a-z 0-9 . _ = -, none of them `.` or `..`")
        return value

    @model_validator(mode="after")
    def _coupled(self) -> "IngestSettings":
        if self.kafka_produce_timeout_s >= self.http_deadline_s:
            raise ValueError(
                f"KAFKA_PRODUCE_TIMEOUT_S={self.kafka_produce_timeout_s:g} must be below "
                f"HTTP_DEADLINE_S={self.http_deadline_s:g} s, or no answer of Kafka could be told in time"
            )
        if self.kafka_away_after_s >= self.kafka_replace_after_s:
            raise ValueError("KAFKA_AWAY_AFTER_S must be below KAFKA_REPLACE_AFTER_S")
        if self.max_in_flight_bytes < 2 * self.max_body_bytes:
            raise ValueError("MAX_IN_FLIGHT_BYTES must be at least twice MAX_BODY_BYTES, or a large body never gets in")
        return self
