"""Where a partition starts, as a table."""

import pytest

from services.uploader.start import ASKS_BEYOND_END, AskAgain, Start, decide_start


@pytest.mark.parametrize(
    ("committed", "begin", "end", "decision"),
    [
        (None, 0, 0, Start(0)),  # a new group on an empty log
        (None, 40, 90, Start(40)),  # a new group reads everything that is left
        (0, 0, 90, Start(0)),
        (50, 40, 90, Start(50)),  # the usual case
        (90, 40, 90, Start(90)),  # nothing to do
        (40, 40, 90, Start(40)),  # the first that is left is the first unread: nothing lost
        (39, 40, 90, Start(40, lost=1)),
        (10, 40, 40, Start(40, lost=30)),  # retention took everything
        (91, 40, 90, AskAgain()),
        (500, 0, 3, AskAgain()),
    ],
)
def test_the_first_answer(committed: int | None, begin: int, end: int, decision: Start | AskAgain) -> None:
    """At the commit; without one at the beginning; what retention took is counted; a low end is doubted."""
    assert decide_start(committed, begin, end, asked=1) == decision


def test_an_end_below_the_commit_is_believed_in_the_end() -> None:
    """Not before the broker has said it ten times: a new leader may show an old end."""
    answers = [decide_start(500, 0, 3, asked) for asked in range(1, ASKS_BEYOND_END + 1)]
    assert answers == [AskAgain()] * 9 + [Start(0, remade=True)]


@pytest.mark.parametrize("committed", [5, 90, 500])
def test_a_commit_of_another_topic_of_that_name_is_void(committed: int) -> None:
    """Below, inside and beyond the new log, which may have outgrown it already: from the beginning, at once."""
    assert decide_start(committed, 0, 90, asked=1, same_topic=False) == Start(0, remade=True)
