"""What an operator is told of S3: once, in words, and not with every put."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from services.uploader.health import CALM_S, NOBODY_TRIES_S, TELL_CHANGES_S, StoreHealth
from shared.ops import Readiness
from shared.telemetry import UploaderMetrics


def health_on(readiness: Readiness, registry: CollectorRegistry | None = None) -> StoreHealth:
    return StoreHealth(readiness, UploaderMetrics(registry or CollectorRegistry()))


def test_readiness_names_the_failure_since_when_and_forgets_it() -> None:
    """Not ready from the first failure on, with reason and duration; ready once puts are stored and none fails."""
    readiness = Readiness("s3")
    health = health_on(readiness)
    health.failed("access_denied", "403", 100.0)
    health.failed("access_denied", "403", 107.0)
    assert readiness.reasons["s3"] == "access_denied since 1970-01-01T00:01:40Z (7 s): 403"
    health.settle(150.0)
    assert not readiness.ready, "nothing was stored since"
    health.succeeded()
    health.settle(150.0)
    assert readiness.ready


def test_a_member_that_has_nothing_to_put_any_more_is_not_unready_for_ever() -> None:
    """S3 failed, then another member took the partitions: no put of ours will ever say that S3 is back."""
    readiness = Readiness("s3")
    health = health_on(readiness)
    health.failed("connection", "refused", 100.0)
    health.settle(100.0 + NOBODY_TRIES_S - 1)
    assert not readiness.ready
    health.settle(100.0 + NOBODY_TRIES_S)
    assert readiness.ready


def test_a_store_that_sheds_some_puts_is_one_event(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred failures among a hundred stored objects: one line when it begins, one when it is over."""
    caplog.set_level(logging.INFO)
    readiness = Readiness()
    health = health_on(readiness)
    for i in range(100):
        health.failed("slow_down", "503", i / 10)
        health.succeeded()
        health.settle(i / 10 + 0.05)
        assert not readiness.ready
    health.settle(10 + CALM_S)
    assert readiness.ready
    assert [record.getMessage() for record in caplog.records] == [
        "S3 does not take objects; trying without end",
        "S3 takes objects again",
    ]


def test_a_put_that_is_alone_ends_it_at_once() -> None:
    """The probe at start: nothing else is under way that could still fail."""
    readiness = Readiness("s3")
    health = health_on(readiness)
    health.failed("no_such_bucket", "404", 1e6)
    health.succeeded(alone=True)
    assert readiness.ready


def test_the_first_stored_object_makes_a_new_process_ready() -> None:
    """With no failure before it, at once."""
    readiness = Readiness("s3")
    health_on(readiness).succeeded()
    assert readiness.ready


def test_reasons_that_alternate_are_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """Time-outs and 503s in turn for 25 s: one line at the start, one each TELL_CHANGES_S, none a put."""
    health = health_on(Readiness())
    for i in range(250):
        health.failed(("timeout", "slow_down")[i % 2], "x", 1000 + i / 10)
    # told at 1000, at the first other reason 10 s later, and again 10 s after that
    assert len(caplog.records) == 1 + int(25 // TELL_CHANGES_S)


def test_the_gauge_holds_since_when_and_goes_with_the_failure() -> None:
    """The time of the first failure stays, whatever reasons follow; nothing is left once it is over."""
    registry = CollectorRegistry()
    health = health_on(Readiness(), registry)
    name = "spillway_uploader_s3_failing_since_timestamp_seconds"
    health.failed("timeout", "x", 500.0)
    health.failed("slow_down", "x", 500.0 + TELL_CHANGES_S)
    assert registry.get_sample_value(name, {"reason": "slow_down"}) == 500.0
    assert registry.get_sample_value(name, {"reason": "timeout"}) is None
    health.succeeded()
    health.settle(500.0 + TELL_CHANGES_S + CALM_S)
    assert registry.get_sample_value(name, {"reason": "slow_down"}) is None
