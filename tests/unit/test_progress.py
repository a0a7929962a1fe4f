"""The watchdog's decisions: who stands still, for how long, why, and whether a new client would help."""

from dataclasses import replace

import pytest

from services.uploader.progress import (
    COMMITTING,
    CURED_BY_A_NEW_CLIENT,
    MEMORY,
    NO_RECORDS,
    POSITIONING,
    UPLOADING,
    WORDS,
    Idle,
    Look,
    Progress,
)

UP_TO_DATE = Look(end=10, committable=10, committed=10, positioned=True, held=0, asked=True, failing=None)


@pytest.mark.parametrize(
    ("look", "reason"),
    [
        (replace(UP_TO_DATE, positioned=False, committable=None), POSITIONING),
        (replace(UP_TO_DATE, end=20), NO_RECORDS),  # asked for, nothing in memory, ten records at the broker
        (replace(UP_TO_DATE, end=20, asked=False), MEMORY),
        (replace(UP_TO_DATE, end=20, held=5), UPLOADING),
        (replace(UP_TO_DATE, end=20, held=5, failing="slow_down"), "slow_down"),
        (replace(UP_TO_DATE, end=20, held=5, failing="slow_down", positioned=False), "slow_down"),  # and overtaken
    ],
)
def test_why_records_are_not_stored(look: Look, reason: str) -> None:
    """One reason by what holds the partition up; the store's own word comes before all but a start not known."""
    assert look.reason == reason


def test_every_reason_of_ours_has_words() -> None:
    """A person is told a sentence, not a constant."""
    assert set(WORDS) == {POSITIONING, NO_RECORDS, COMMITTING, UPLOADING, MEMORY}
    assert set(WORDS) >= CURED_BY_A_NEW_CLIENT


def test_nothing_to_do_is_never_idle() -> None:
    """A quiet topic for a day: 0 s."""
    progress = Progress(0)
    for now_s in (0, 60, 86_400):
        assert progress.idle(UP_TO_DATE, now_s).idle_s == 0


def test_idle_from_the_last_record_stored() -> None:
    """The clock starts with the last look at which the committable offset had moved."""
    progress = Progress(0)
    behind = replace(UP_TO_DATE, end=100, committable=10, held=90, failing="timeout")
    progress.idle(behind, 5)
    moved = replace(behind, committable=11, committed=11)
    assert progress.idle(moved, 20).idle_s == 0
    assert progress.idle(moved, 50) == Idle(30, "timeout")  # 50 - 20
    assert progress.idle(replace(moved, end=500), 60) == Idle(40, "timeout")  # new records are no progress
    assert progress.idle(replace(moved, committable=500, committed=500, end=500, held=0), 70).idle_s == 0


def test_commits_that_fail_under_load_are_seen() -> None:
    """Records are stored all the time; the commit stands at 10 since 0 s, and that is what is named."""
    progress = Progress(0)
    for now_s in range(0, 100, 10):
        look = replace(UP_TO_DATE, end=1000 + now_s, committable=20 + now_s, held=5, committed=10)
        idle = progress.idle(look, now_s)
    assert idle == Idle(90, COMMITTING)


def test_a_start_that_is_never_found_is_seen() -> None:
    """No committable offset is known, so there is no lag to count; it is idle all the same."""
    progress = Progress(0)
    unknown = Look(end=10, committable=None, committed=None, positioned=False, held=0, asked=False, failing=None)
    assert progress.idle(unknown, 90) == Idle(90, POSITIONING)
