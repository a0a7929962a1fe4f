"""What an operator is told of S3: once, in words, and not with every put."""

import logging

import pytest

from services.uploader.health import CALM_S, StoreHealth
from shared.ops import Readiness


def test_readiness_names_the_failure_since_when_and_forgets_it() -> None:
    """Not ready from the first failure on, with reason and duration; ready once puts are stored and none fails."""
    readiness = Readiness("s3")
    health = StoreHealth(readiness)
    health.failed("access_denied", "403", 100.0)
    health.failed("access_denied", "403", 107.0)
    assert readiness.reasons["s3"] == "access_denied for 7 s: 403"
    health.settle(200.0)
    assert not readiness.ready, "nothing was stored since"
    health.succeeded()
    health.settle(200.0)
    assert readiness.ready


def test_a_store_that_sheds_some_puts_is_one_event(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred failures among a hundred stored objects: one line when it begins, one when it is over."""
    caplog.set_level(logging.INFO)
    readiness = Readiness()
    health = StoreHealth(readiness)
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
    health = StoreHealth(readiness)
    health.failed("no_such_bucket", "404", 1e6)
    health.succeeded(alone=True)
    assert readiness.ready


def test_the_first_stored_object_makes_a_new_process_ready() -> None:
    """With no failure before it, at once."""
    readiness = Readiness("s3")
    StoreHealth(readiness).succeeded()
    assert readiness.ready
