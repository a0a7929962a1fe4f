"""Our own OpenAPI document, asked by schemathesis: what it allows is taken, what it forbids is refused, and every
answer is one that it describes.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from services.ingest.request import COLLECTIONS_PATH
from tests.fuzz.reference import VERSION_BYTES_MAX
from tests.fuzz.sizes import Sizes
from tests.fuzz.target import HANG_S, ITEMS_MAX, Target

Operation: TypeAlias = schemathesis.APIOperation[Any, Any, Any, Any]
Asked: TypeAlias = Case[Any]


@pytest.fixture(scope="module")
def operation(ingest: Target) -> Operation:
    """`POST /v1/collections`, as the running ingest documents it."""
    schema = schemathesis.openapi.from_url(f"{ingest.tier.url}/openapi.json")
    return schema[COLLECTIONS_PATH]["POST"]


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """One kept connection."""
    with requests.Session() as kept:
        yield kept


def fuzz(operation: Operation, mode: GenerationMode, cases: int, ask: Callable[[Asked], None]) -> None:
    limits = settings(max_examples=cases, database=None, suppress_health_check=list(HealthCheck), deadline=None)
    limits(given(case=operation.as_strategy(generation_mode=mode))(ask))()


def is_over_a_limit(case: Asked) -> bool:
    """Limits that a JSON schema cannot say: bytes of the version; and the setting MAX_ITEMS."""
    body = case.body
    if not isinstance(body, dict):
        return False
    version, data = body.get("version"), body.get("data")
    return (isinstance(version, str) and len(version.encode()) > VERSION_BYTES_MAX) or (
        isinstance(data, list) and len(data) > ITEMS_MAX
    )


def move_into_our_time(case: Asked) -> None:
    """Most of the keys that the pattern allows are of another century: they get the time of now, and keep the rest."""
    key = case.headers.get("Idempotency-Key", "")
    if key and case.meta is not None and case.meta.generation.mode.is_positive:
        time_ms = f"{time.time_ns() // 1_000_000:012x}"
        case.headers["Idempotency-Key"] = f"{time_ms[:8]}-{time_ms[8:]}{key[13:]}"


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
def test_every_answer_is_the_documents(
    mode: GenerationMode,
    operation: Operation,
    ingest: Target,
    session: requests.Session,
    sizes: Sizes,
    record_property: Callable[[str, object], None],
) -> None:
    """Status, media type, body and headers conform; allowed data is taken, forbidden data is not; never a 5xx."""
    statuses: dict[int, int] = {}

    def ask(case: Asked) -> None:
        move_into_our_time(case)
        excluded: list[schemathesis.CheckFunction] = [positive_data_acceptance] if is_over_a_limit(case) else []
        answer = case.call_and_validate(
            base_url=ingest.tier.url, session=session, timeout=HANG_S, excluded_checks=excluded
        )
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1

    fuzz(operation, mode, sizes.documented if mode is GenerationMode.POSITIVE else sizes.forbidden, ask)
    record_property("fuzz", ", ".join(f"{count}x {status}" for status, count in sorted(statuses.items())))
    ingest.assert_unharmed()
