"""What a dead letter carries, and the limit on their share, as tables with their arithmetic and as properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.dead_letter import MESSAGE_BYTES_MAX, DeadShare, Header, cut, dead_headers

HEADERS = st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.binary()))


def letter(headers: list[Header], *, offset: int = 7, message: str = "too large") -> list[Header]:
    return dead_headers(
        headers,
        topic="payloads",
        partition=3,
        offset=offset,
        timestamp_ms=1_795_521_600_123,
        reason="entity_too_large",
        message=message,
        attempts=2,
    )


def test_the_seven_headers() -> None:
    """DESIGN §7 names them; redrive reads them by these names."""
    assert letter([]) == [
        ("dead.topic", b"payloads"),
        ("dead.partition", b"3"),
        ("dead.offset", b"7"),
        ("dead.timestamp", b"1795521600123"),
        ("dead.error", b"entity_too_large"),
        ("dead.message", b"too large"),
        ("dead.attempts", b"2"),
    ]


@given(HEADERS)
def test_the_records_own_headers_stand_first_and_untouched(headers: list[Header]) -> None:
    """Order, duplicates, nulls and empty values included."""
    assert letter(headers)[: len(headers)] == headers
    assert len(letter(headers)) == len(headers) + 7


def test_a_letter_that_fails_again_keeps_its_first_coordinates() -> None:
    """The first set tells where the record was at the beginning, the last why it failed lately; neither replaces the
    other.
    """
    twice = letter(letter([("spillway-id", b"a")], offset=7, message="first"), offset=99, message="second")
    assert [value for name, value in twice if name == "dead.offset"] == [b"7", b"99"]
    assert [value for name, value in twice if name == "dead.message"] == [b"first", b"second"]
    assert dict(twice)["dead.message"] == b"second"


@pytest.mark.parametrize(
    ("text", "bytes_max", "kept"),
    [
        ("", 4, b""),
        ("abcd", 4, b"abcd"),
        ("abcde", 4, b"abcd"),
        ("abcé", 4, b"abc"),  # é takes 2 bytes: 3 + 2 = 5
        ("abé", 4, "abé".encode()),  # 2 + 2 = 4
        ("😀😀", 7, "😀".encode()),  # 4 + 4 = 8
        ("a\ud83d", 9, b"a?"),  # half of an emoji is no character
    ],
)
def test_a_message_is_cut_between_characters(text: str, bytes_max: int, kept: bytes) -> None:
    """What remains is UTF-8, and not longer than allowed."""
    assert cut(text, bytes_max) == kept


@given(st.text(max_size=3000))
def test_a_message_is_at_most_1_kb_of_utf8(text: str) -> None:
    """The longest such beginning: one more character would not fit."""
    kept = dict(letter([], message=text))["dead.message"]
    assert kept is not None
    assert len(kept) <= MESSAGE_BYTES_MAX == 1024
    beginning = kept.decode()
    assert text.encode(errors="replace").decode().startswith(beginning)
    assert len(beginning) == len(text) or len(text[: len(beginning) + 1].encode(errors="replace")) > 1024


@pytest.mark.parametrize(
    ("share_max", "window", "allowed"),
    [
        (0.05, 1000, 50),
        (0.0, 1000, 0),
        (1.0, 1000, 1000),
        (0.29, 100, 29),  # 28.999999999999996 to a float
        (0.0009, 1000, 0),  # 0.9 of a letter is none
        (1e-05, 1_000_000, 10),  # written with an exponent
    ],
)
def test_how_many_letters_a_share_allows(share_max: float, window: int, allowed: int) -> None:
    """The share of the window, rounded down, as the operator wrote it."""
    share = DeadShare(share_max, window)
    assert share.allowed == allowed
    written = 0
    while share.may_bury() and written < 2 * window:  # every record is poison: a bad deploy
        share.buried()
        written += 1
    assert written == (2 * window if share_max == 1 else allowed)  # at 1 there is no limit


def test_room_comes_back_when_old_letters_leave_the_window() -> None:
    """2 of 10 allowed: both spent at once, then the first leaves with the tenth record settled after it."""
    share = DeadShare(0.2, 10)
    share.buried()
    share.buried()
    for _ in range(8):
        assert not share.may_bury()
        share.settled()
    assert (share.letters, share.seen) == (2, 10)
    assert share.may_bury()  # the next entry pushes out the first letter: 2 - 1 + 1 = 2
    share.settled()
    assert share.letters == 1


@given(
    share_max=st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.375, 0.5, 0.875, 1.0]),
    window=st.integers(1, 40),
    poison=st.lists(st.booleans(), max_size=300),
)
def test_never_more_than_the_share_in_any_window(share_max: float, window: int, poison: list[bool]) -> None:
    """Whatever comes in whatever order, no `window` settlements one after another hold more than share * window dead
    letters; nor is one refused that would have kept to that.
    """
    share = DeadShare(share_max, window)
    history: list[bool] = []
    for bad in poison:
        if not bad:
            share.settled()
            history.append(False)
        elif share.may_bury():
            share.buried()
            history.append(True)
        else:
            last = [*history, True][-window:]
            assert sum(last) > share_max * window, "refused without need"
    assert all(sum(history[i : i + window]) <= share_max * window for i in range(len(history)))
    assert share.letters == sum(history[-window:])
