"""What a worker and its supervisor say to each other, and how it is framed. Pure: bytes in, values out.

The supervisor says single bytes: REPORT (tell how you are) and DRAIN (finish, and leave). The worker answers each
REPORT with one frame: four bytes of length, then a Report as MessagePack. There is never more than one REPORT without
its answer, so neither side can fill the other's buffer.
"""

from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry

REPORT = b"r"
DRAIN = b"d"
HEAD_BYTES = 4
FRAME_BYTES_MAX = 4 * 1024 * 1024
"""Some 40,000 series; labels are bounded, and a worker has a few hundred."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One series and its value."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric with all its series."""

    name: str
    documentation: str
    type: str
    samples: list[Sample]


class Report(msgspec.Struct, frozen=True, array_like=True):
    """How a worker is."""

    listening: bool  # it takes connections, or is about to
    conditions: dict[str, bool]  # of its readiness: whether each holds
    reasons: dict[str, str]  # why some do not
    families: list[Family]


class Conditions(Protocol):
    """What a report needs of a process's readiness."""

    @property
    def conditions(self) -> dict[str, bool]:
        """Whether each holds."""
        ...

    @property
    def reasons(self) -> dict[str, str]:
        """Why some do not."""
        ...


def report(readiness: Conditions, registry: CollectorRegistry, *, listening: bool) -> Report:
    """How this process is now."""
    return Report(listening, readiness.conditions, readiness.reasons, families(registry))


def families(registry: CollectorRegistry) -> list[Family]:
    """Every metric of a registry with its values."""
    return [
        Family(
            family.name,
            family.documentation,
            family.type,
            [Sample(sample.name, dict(sample.labels), float(sample.value)) for sample in family.samples],
        )
        for family in registry.collect()
    ]


def framed(told: Report) -> bytes:
    """The report as it goes over the channel."""
    body = msgspec.msgpack.encode(told)
    return len(body).to_bytes(HEAD_BYTES, "big") + body


def body_bytes(head: bytes) -> int:
    """How long the rest of a frame is.

    Raises:
        ValueError: it cannot be one of ours.

    """
    length = int.from_bytes(head, "big")
    if not 0 < length <= FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {length} bytes")
    return length


def parsed(body: bytes) -> Report:
    """The report of a frame's rest.

    Raises:
        msgspec.MsgspecError: it is none.

    """
    return msgspec.msgpack.decode(body, type=Report)
