"""Who may do what on a broker that has an authorizer: grants made and taken back, as an administrator would.

aiokafka's admin client has no words for them, only its protocol; the numbers are Kafka's own.
"""

import asyncio
from enum import IntEnum

from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from tests.harness.broker import Topic, admin


class Kind(IntEnum):
    """What is granted on."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4


class Operation(IntEnum):
    """What is granted, by Kafka's own names."""

    Read = 3
    Write = 4
    Create = 5
    Describe = 8
    DescribeConfigs = 10


_LITERAL, _ALLOW = 3, 3

Grant = tuple[str, Kind, str, Operation]
"""User, and what may be done to what."""


def needed(topic: Topic) -> list[Grant]:
    """All that the tiers and the operator's commands need, each a user of its own; docs/security.md shows it."""
    asked = (Operation.Describe, Operation.DescribeConfigs)
    rows: list[tuple[str, Kind, str, tuple[Operation, ...]]] = [
        ("ingest", Kind.TOPIC, topic.name, (Operation.Write, *asked)),
        ("uploader", Kind.TOPIC, topic.name, (Operation.Read, *asked)),
        ("uploader", Kind.TOPIC, topic.dead, (Operation.Write, *asked)),
        ("uploader", Kind.GROUP, topic.group, (Operation.Read,)),
        ("operator", Kind.TOPIC, topic.name, (Operation.Read, Operation.Create, *asked)),
        ("operator", Kind.TOPIC, topic.dead, (Operation.Read, Operation.Create, *asked)),
        ("operator", Kind.GROUP, topic.group, (Operation.Describe,)),
    ]
    return [(user, kind, name, operation) for user, kind, name, operations in rows for operation in operations]


def allow(bootstrap_servers: str, *grants: Grant) -> None:
    """Grant all of these."""
    asyncio.run(_change(bootstrap_servers, CreateAclsRequest, grants))


def revoke(bootstrap_servers: str, *grants: Grant) -> None:
    """Take all of these back."""
    asyncio.run(_change(bootstrap_servers, DeleteAclsRequest, grants))


async def _change(
    bootstrap_servers: str, kind: type[CreateAclsRequest | DeleteAclsRequest], grants: tuple[Grant, ...]
) -> None:
    async with asyncio.timeout(30), admin(bootstrap_servers) as client:
        for user, resource, name, operation in grants:
            answer = await client._send_to_controller(
                kind(int(resource), name, _LITERAL, f"User:{user}", "*", int(operation), _ALLOW)
            )
            results = answer.creation_responses if kind is CreateAclsRequest else answer.filter_responses
            for error_code, message, *_ in results:
                assert error_code == 0, f"{for_code(error_code).__name__}: {message}"
