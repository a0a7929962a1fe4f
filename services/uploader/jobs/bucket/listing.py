"""How many objects are asked for with few requests: listings where their keys lie close, HEADs elsewhere. Pure.

A listing tells of 1,000 keys in one request, in the order of keys, and costs as much as 12 HEADs. It is worth it where
the expected keys of one prefix make a good part of what lies between the first and the last of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.uploader.jobs.bucket.comparison import Expected
from services.uploader.store.found import Listed

LIST_MIN = 12
"""Fewer keys of one prefix are asked for one by one; and so are the rest, once a page has fewer of them than this."""

DIRECTORY_BUCKET = "--x-s3"
"""How the name of an S3 Express bucket ends: its listings are in no order (S3 User Guide, "Directory buckets")."""


@dataclass(frozen=True, slots=True)
class Group:
    """Records whose keys share a prefix, in the order of keys. One key may be expected more than once."""

    prefix: str
    expected: tuple[Expected, ...]

    @property
    def after(self) -> str:
        """What a listing is to start behind: it sorts before the first key, and not far."""
        return self.expected[0].key[:-1]


def plan(chunk: Iterable[Expected], *, lists: bool) -> tuple[list[Group], list[Expected]]:
    """What is to be listed, and what is asked for one by one.

    Args:
        chunk: records, in any order.
        lists: whether the bucket's listings can be used at all.

    """
    by_prefix: dict[str, list[Expected]] = defaultdict(list)
    singles: list[Expected] = []
    for expected in chunk:
        by_prefix[expected.key[: expected.key.rfind("/") + 1]].append(expected)
    groups = []
    for prefix, members in sorted(by_prefix.items()):
        if lists and len(members) >= LIST_MIN:
            groups.append(Group(prefix, tuple(sorted(members, key=lambda one: one.key))))
        else:
            singles += members
    return groups, singles


@dataclass(slots=True)
class Walk:
    """One group's way through its listing. Pages are fed in order.

    Attributes:
        group: what is looked for.
        after: what the next page is to start behind.
        done: whether no further page is worth its price.

    """

    group: Group
    after: str
    done: bool = False
    _at: int = 0  # how many of the group's records lie behind us

    @classmethod
    def of(cls, group: Group) -> "Walk":
        """At the beginning."""
        return cls(group, group.after)

    def feed(self, page: Sequence[Listed], *, more: bool) -> list[tuple[Expected, Listed | None]]:
        """Take a page; what it tells: each record with its object, or with None where there is none.

        Args:
            page: in the order of keys.
            more: whether the listing goes on behind it.

        """
        expected = self.group.expected
        by_key = {listed.key: listed for listed in page}
        told: list[tuple[Expected, Listed | None]] = []
        last = page[-1].key if page else ""
        while self._at < len(expected) and (not more or expected[self._at].key <= last):
            listed = by_key.get(expected[self._at].key)
            told.append((expected[self._at], listed))
            self._at += 1
        self.after = last or self.after
        self.done = self._at >= len(expected) or not more or len(told) < LIST_MIN
        return told

    @property
    def rest(self) -> Sequence[Expected]:
        """Records of which no page has told."""
        return self.group.expected[self._at :]
