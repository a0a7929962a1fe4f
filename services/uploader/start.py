"""Where a partition starts, or goes on once its position is out of range: a decision over the log's two ends. Pure.

Never a silent reset: what retention took is named exactly, and a commit beyond the end is believed only after the
broker has said so for a while. A leader that has just been elected may show an end that is behind the true one
(KIP-207); believing it at once would store the whole topic again. A commit that was made for another topic of the same
name is void, also where the new log has already outgrown it.
"""

from dataclasses import dataclass

ASKS_BEYOND_END = 10
"""How often the broker must show an end below the commit until the topic counts as made anew."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start at `offset`. `lost` offsets before it were committed as unread and are gone; `remade`: another log."""

    offset: int
    lost: int = 0
    remade: bool = False


@dataclass(frozen=True, slots=True)
class AskAgain:
    """The answer may not be the last word."""


def decide_start(
    committed: int | None, begin: int, end: int, asked: int, *, same_topic: bool = True
) -> Start | AskAgain:
    """Decide where to start.

    Args:
        committed: the next offset to read: the group's commit, None where there is none, or the position so far.
        begin: the log's first offset.
        end: the next offset that the log will give out.
        asked: how often the broker was asked by now, this time counted.
        same_topic: whether `committed` is an offset of this topic, and not of one of its name that is gone.

    """
    if committed is None:
        return Start(begin)
    if not same_topic:
        return Start(begin, remade=True)
    if committed < begin:
        return Start(begin, lost=begin - committed)
    if committed > end:
        return AskAgain() if asked < ASKS_BEYOND_END else Start(begin, remade=True)
    return Start(committed)
