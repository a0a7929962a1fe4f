"""Walks through listings, against a bucket that is looked through key by key."""

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.jobs.bucket.comparison import Expected
from services.uploader.jobs.bucket.listing import DIRECTORY_BUCKET, LIST_MIN, Group, Walk, plan
from services.uploader.store.found import Listed

PREFIX = "f/dt=1/"


def expected(key: str, offset: int = 0) -> Expected:
    return Expected(0, offset, key, f"id-{offset}", 1, "", "")


def all_of(keys: Iterable[str]) -> list[Expected]:
    return [expected(key, offset) for offset, key in enumerate(keys)]


def group_of(keys: Iterable[str], prefix: str = PREFIX) -> Group:
    return Group(prefix, tuple(sorted(all_of(keys), key=lambda one: one.key)))


@dataclass
class Bucket:
    """Keys as S3 lists them: by prefix, behind a key, in pages. `asked` is what the pages began behind."""

    keys: Iterable[str]
    page_max: int
    asked: list[str] = field(default_factory=list)

    def page(self, prefix: str, after: str) -> tuple[list[Listed], bool]:
        self.asked.append(after)
        keys = sorted(set(self.keys))
        left = [key for key in keys[bisect.bisect_right(keys, after) :] if key.startswith(prefix)]
        return [Listed(key, len(key), f'"{key}"') for key in left[: self.page_max]], len(left) > self.page_max


Told = list[tuple[Expected, Listed | None]]


def walked(group: Group, bucket: Bucket) -> tuple[Told, Walk]:
    """To its end, as `verify` does."""
    walk, told = Walk.of(group), Told()
    for _ in range(1000):
        if walk.done:
            return told, walk
        page, more = bucket.page(group.prefix, walk.after)
        told += walk.feed(page, more=more)
    raise AssertionError("the walk has no end")


def check(group: Group, bucket: Bucket) -> tuple[Told, Walk]:
    """Walk, and hold what is told against the bucket."""
    told, walk = walked(group, bucket)
    there = set(bucket.keys)
    for one, listed in told:
        assert (listed is not None) == (one.key in there), one
        assert listed is None or listed == Listed(one.key, len(one.key), f'"{one.key}"')
    # As a list: each once, in the order of the group, and what nobody told is left over.
    assert (*(one for one, _ in told), *walk.rest) == group.expected
    assert len(set(bucket.asked)) == len(bucket.asked), "a page was paid for twice"
    return told, walk


NAMES = [f"{PREFIX}{number:03d}" for number in range(100)]


@pytest.mark.parametrize("page_max", [1, 2, 11, 12, 13, 50, 99, 100, 101, 1000])
def test_a_bucket_with_all_of_them(page_max: int) -> None:
    """Pages of at least LIST_MIN expected keys are walked to the end; smaller ones are not worth their price."""
    bucket = Bucket(NAMES, page_max)
    told, _ = check(group_of(NAMES), bucket)
    if page_max >= LIST_MIN:
        assert len(told) >= 100 - LIST_MIN
        assert len(bucket.asked) <= -(-100 // page_max) + 1
    else:
        assert (len(told), len(bucket.asked)) == (page_max, 1)


def test_an_empty_bucket_is_told_by_one_page() -> None:
    """The page is the last one: none of the records has an object."""
    told, walk = check(group_of(NAMES), Bucket([], 1000))
    assert [listed for _, listed in told] == [None] * 100
    assert not walk.rest


def test_a_full_bucket_of_other_keys_is_given_up() -> None:
    """Foreign keys between ours make pages that tell of few: a listing of a million of them is never walked."""
    crowd = [f"{name}-{other:03d}" for name in NAMES for other in range(100)]
    bucket = Bucket(crowd, 100)
    told, walk = check(group_of(NAMES), bucket)
    assert len(bucket.asked) == 1
    assert len(told) + len(walk.rest) == 100
    assert len(walk.rest) > 90


@pytest.mark.parametrize("more", [False, True])
def test_an_empty_page(more: bool) -> None:
    """One that says that there is more (S3 may answer so behind deleted keys) tells nothing and ends the walk."""
    walk = Walk.of(group_of(NAMES))
    told = walk.feed([], more=more)
    assert walk.done
    if more:
        assert (told, len(walk.rest)) == ([], 100)
    else:
        assert ([listed for _, listed in told], len(walk.rest)) == ([None] * 100, 0)


def test_an_empty_page_in_the_middle_keeps_the_place() -> None:
    """What came before it is told, what comes behind it is left over."""
    walk = Walk.of(group_of(NAMES))
    page = [Listed(name, 1, "") for name in NAMES[:40]]
    assert len(walk.feed(page, more=True)) == 40
    assert (walk.after, walk.done) == (NAMES[39], False)
    assert walk.feed([], more=True) == []
    assert (walk.after, walk.done) == (NAMES[39], True)
    assert [one.key for one in walk.rest] == NAMES[40:]


@pytest.mark.parametrize("page_max", [5, 20, 1000])
@pytest.mark.parametrize("there", [True, False])
def test_one_key_of_many_records(page_max: int, there: bool) -> None:
    """A record that was redelivered has the same key: each of them is told of, and with the same object."""
    names = [NAMES[at // 30] for at in range(90)]
    told, walk = check(group_of(names), Bucket(NAMES if there else NAMES[50:], page_max))
    assert len(told) + len(walk.rest) == 90
    assert len({one.offset for one, _ in told}) == len(told)


def test_keys_that_differ_in_their_last_character_alone() -> None:
    """The listing starts right before the first of them, and behind all that sorts before."""
    names = [f"{PREFIX}k{letter}" for letter in "0123456789abcdefghij"]
    bucket = Bucket([f"{PREFIX}a{at}" for at in range(1000)] + names[::2], 1000)
    told, walk = check(group_of(names), bucket)
    assert bucket.asked == [f"{PREFIX}k"]
    assert [listed is not None for _, listed in told] == [True, False] * 10
    assert not walk.rest


@pytest.mark.parametrize("first", [f"{PREFIX}a", PREFIX, "a", "f/"])
def test_the_first_key_is_never_passed_over(first: str) -> None:
    """A listing begins behind a key, so it has to start before the first of ours, however short that is."""
    names = [first + "!" * at for at in range(LIST_MIN)]
    prefix = first[: first.rfind("/") + 1]
    told, _ = check(group_of(names, prefix), Bucket(names, 1000))
    assert all(listed is not None for _, listed in told)


# -- random buckets

LETTERS = "-/09=az"  # around what stands in keys, both sides of the slash
NAME = st.text(alphabet=LETTERS, min_size=1, max_size=4)


@st.composite
def groups_and_buckets(draw: st.DrawFn) -> tuple[Group, Bucket]:
    wanted = draw(st.lists(NAME, min_size=1, max_size=60))
    others = draw(st.lists(NAME, max_size=60))
    there = [name for name in wanted if draw(st.booleans())] + others
    outside = draw(st.lists(st.text(alphabet=LETTERS + "ef", max_size=6), max_size=5))
    return group_of(f"{PREFIX}{name}" for name in wanted), Bucket(
        [f"{PREFIX}{name}" for name in there] + outside, draw(st.integers(1, 70))
    )


@given(groups_and_buckets())
def test_what_is_told_is_true_of_any_bucket(case: tuple[Group, Bucket]) -> None:
    """Each record at most once, each with the object at its key or truly without one; the others are left over."""
    check(*case)


@given(st.lists(st.integers(0, 99), min_size=LIST_MIN, max_size=200), st.sets(st.integers(0, 99)), st.integers(1, 120))
def test_what_is_told_is_true_of_long_pages(wanted: list[int], there: set[int], page_max: int) -> None:
    """As above, where whole pages are worth their price and the walk goes on."""
    check(group_of(NAMES[at] for at in wanted), Bucket([NAMES[at] for at in there], page_max))


@given(st.lists(st.tuples(st.sampled_from(("", "a/", "a/b/", "a/b", "c/")), st.integers(0, 30)), max_size=150))
def test_a_plan_has_each_record_once(wanted: list[tuple[str, int]]) -> None:
    """In one group or among the singles; a group has one prefix, is in the order of keys and worth a listing."""
    chunk = all_of(f"{prefix}{name}" for prefix, name in wanted)
    groups, singles = plan(iter(chunk), lists=True)
    assert Counter([*in_groups(groups), *singles]) == Counter(chunk)
    for group in groups:
        keys = [one.key for one in group.expected]
        assert keys == sorted(keys)
        assert {key[: key.rfind("/") + 1] for key in keys} == {group.prefix}
        assert len(keys) >= LIST_MIN
        assert group.after < keys[0]
        assert keys[0].startswith(group.after)
    assert len({group.prefix for group in groups}) == len(groups)
    prefixes = Counter(one.key[: one.key.rfind("/") + 1] for one in singles)
    assert all(count < LIST_MIN for count in prefixes.values())


def in_groups(groups: Sequence[Group]) -> Iterator[Expected]:
    for group in groups:
        yield from group.expected


def test_a_group_is_in_the_order_of_keys() -> None:
    """The topic is not: records of one prefix come from many partitions."""
    chunk = all_of(reversed(NAMES))
    (group,), singles = plan(chunk, lists=True)
    assert [one.key for one in group.expected] == NAMES
    assert (group.prefix, singles) == (PREFIX, [])
    told, _ = check(group, Bucket(NAMES, 1000))
    assert all(listed is not None for _, listed in told)


def test_without_listings_all_are_singles() -> None:
    """Where a bucket lists in no order, as a directory bucket, or `--heads` says so."""
    chunk = all_of(NAMES)
    assert plan(chunk, lists=False) == ([], chunk)
    assert plan([], lists=True) == ([], [])
    assert "logs--use1-az4--x-s3".endswith(DIRECTORY_BUCKET)


def test_a_walk_is_fed_what_it_asks_for() -> None:
    """A store that ignores where a page is to begin, and answers the first again, ends the walk and harms nothing."""
    walk = Walk.of(group_of(NAMES))
    page = [Listed(name, 1, "") for name in NAMES[:40]]
    assert len(walk.feed(page, more=True)) == 40
    assert walk.feed(page, more=True) == []
    assert walk.done
    assert len(walk.rest) == 60


def test_a_listing_that_changes_meanwhile() -> None:
    """An object that is stored while its listing is read is told of as it was then, and never twice."""
    group = group_of(NAMES)
    walk, told = Walk.of(group), Told()
    for round_ in range(2):
        bucket = Bucket(NAMES[::2] if round_ == 0 else NAMES, 30)
        page, more = bucket.page(PREFIX, walk.after)
        told += walk.feed(page, more=more)
    assert (*(one for one, _ in told), *walk.rest) == group.expected
    assert replace(group, expected=group.expected[:1]).after == NAMES[0][:-1]
