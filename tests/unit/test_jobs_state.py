"""What a job keeps in its commits: it comes back as it went, it always fits, and nobody else's is taken for it."""

import json
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.jobs.span import Gone
from services.uploader.jobs.storing.state import (
    GONE_MAX,
    NOTE_BYTES_MAX,
    PURPOSE_BYTES_MAX,
    PartitionState,
    Progress,
    Purpose,
    UnreadableStateError,
    group_of,
    lost,
    read_note,
    spell,
    total,
)

PURPOSE = Purpose(bucket="payloads", key_template="{folder}/{id}")
STATE = PartitionState(topic_id="t-1", begin=10, end=100, settled=10, purpose=PURPOSE)
OFFSET_MAX = 2**63 - 1

offsets = st.integers(0, OFFSET_MAX)
words = st.text(max_size=60)
purposes = st.builds(
    Purpose,
    bucket=words,
    key_template=words,
    prefix=words,
    default_folder=words,
    only_missing=st.booleans(),
    folder=st.none() | words,
    record_id=st.none() | words,
    file_sum=st.none() | words,
    range=words,
)


@st.composite
def states(draw: st.DrawFn, partition: int = 3) -> PartitionState:
    gone = st.builds(
        Gone, st.just(partition), offsets, offsets, since_ms=st.none() | offsets, until_ms=st.none() | offsets
    )
    return PartitionState(
        topic_id=draw(st.none() | st.text(max_size=40)),
        begin=draw(offsets),
        end=draw(offsets),
        settled=draw(offsets),
        purpose=draw(purposes),
        not_stored=draw(offsets),
        first_not_stored=draw(st.none() | offsets),
        gone=tuple(draw(st.lists(gone, max_size=GONE_MAX))),
    )


@given(states())
def test_a_note_comes_back_as_it_went(state: PartitionState) -> None:
    """Every field survives the process, in any text and at any size of its numbers."""
    try:
        note = state.note()
    except ValueError:
        assert len(json.dumps(asdict(state.purpose))) > PURPOSE_BYTES_MAX
        return
    assert note.isascii()
    assert len(note) <= NOTE_BYTES_MAX
    assert read_note(3, state.settled, note) == state


def test_what_fits_at_the_start_fits_at_the_end() -> None:
    """A job whose purpose was accepted can always commit, however much was gone or refused on its way."""

    def padded(bytes_: int) -> Purpose:
        bare = len(json.dumps(asdict(replace(PURPOSE, record_id="")), separators=(",", ":")))
        return replace(PURPOSE, record_id="x" * (bytes_ - bare))

    start = replace(STATE, topic_id="x" * 36, purpose=padded(PURPOSE_BYTES_MAX))
    start.note()
    worst = replace(
        start,
        begin=OFFSET_MAX,
        end=OFFSET_MAX,
        not_stored=OFFSET_MAX,
        first_not_stored=OFFSET_MAX,
        gone=(Gone(0, OFFSET_MAX, OFFSET_MAX, OFFSET_MAX, OFFSET_MAX),) * (GONE_MAX + 5),
    )
    assert len(worst.note()) <= NOTE_BYTES_MAX
    with pytest.raises(ValueError, match="takes 2049 bytes to note, and there are 2048"):
        replace(start, purpose=padded(PURPOSE_BYTES_MAX + 1)).note()


def test_of_much_that_is_gone_the_first_are_noted() -> None:
    """At most GONE_MAX: a job that lost something never looks as if it had lost nothing."""
    gone = tuple(Gone(0, at, at + 1) for at in range(GONE_MAX + 7))
    assert read_note(0, 10, replace(STATE, gone=gone).note()).gone == gone[:GONE_MAX]


def changed(**values: object) -> str:
    return json.dumps({**json.loads(STATE.note()), **values})


def without(name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(STATE.note()).items() if key != name})


@pytest.mark.parametrize(
    "note",
    [
        "",  # what kafka-consumer-groups --reset-offsets leaves
        "None",
        "null",
        "1",
        '"v"',
        "[]",
        "{}",
        '{"v":1}',
        "started by hand",
        "[" * 4096,  # as deep as a note can be
        '{"a":' * 800,
        '{"v":1' + ',"x":' + "[" * 4000,
        without("begin"),
        without("end"),
        without("purpose"),
        without("not_stored"),
        without("gone"),
        changed(begin=None),
        changed(begin="x"),
        changed(end=[]),
        STATE.note().replace('"end":100', '"end":Infinity'),
        changed(not_stored={}),
        changed(gone=None),
        changed(gone=[[1]]),
        changed(gone=[5]),
        changed(gone=[[1, 2, 3, 4, 5]]),
        changed(purpose=None),
        changed(purpose={}),
        changed(purpose={**asdict(PURPOSE), "another": 1}),
        STATE.note()[:-1],
    ],
)
def test_a_foreign_note_is_refused(note: str) -> None:
    """A commit that no job has made ends in one line, which shows what stands there."""
    with pytest.raises(UnreadableStateError, match="its commits were not made by a job") as caught:
        read_note(0, 10, note)
    assert len(str(caught.value)) < 250
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_refused_by_its_number(version: object) -> None:
    """A state of a later program is not guessed at."""
    with pytest.raises(UnreadableStateError, match=f"of version {version}, and this program writes 1"):
        read_note(0, 10, changed(v=version))


@given(st.text(max_size=200) | st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists).map(json.dumps))
def test_no_note_ends_in_a_traceback(note: str) -> None:
    """Whatever another program has put there."""
    with pytest.raises(UnreadableStateError):
        read_note(0, 10, note)


DIFFERENT = {
    "bucket": "other",
    "key_template": "{id}",
    "prefix": "p",
    "default_folder": "d",
    "only_missing": True,
    "folder": "f",
    "record_id": "i",
    "file_sum": "s",
    "range": "--from 2h",
    "endpoint": "http://other:9000",
    "before_ms": 7,
    "partitions": "0-11",
}


@pytest.mark.parametrize("name", [field.name for field in fields(Purpose)])
def test_every_part_of_a_purpose_counts(name: str) -> None:
    """A job is not resumed with anything else in mind; what differs is named with both its values."""
    other = replace(PURPOSE, **{name: DIFFERENT[name]})  # type: ignore[arg-type]
    assert PURPOSE.difference(PURPOSE) is None
    assert PURPOSE.difference(other) == f"{name} was {getattr(PURPOSE, name)!r} and is {DIFFERENT[name]!r}"
    assert other.difference(PURPOSE) is not None


def test_what_was_refused_counts_once_it_is_settled() -> None:
    """A record that S3 can never take is counted by the commit that passes it, and by no earlier one."""
    progress = Progress(STATE, refused={20, 30, 40})
    assert progress.at(20).not_stored == 0  # the commit is the next offset: 20 itself is still to come
    assert progress.at(20).first_not_stored is None
    assert (progress.at(21).not_stored, progress.at(21).first_not_stored) == (1, 20)
    assert (progress.at(40).not_stored, progress.at(40).first_not_stored) == (2, 20)
    assert progress.at(100) == replace(STATE, settled=100, not_stored=3, first_not_stored=20)


def test_earlier_runs_are_kept() -> None:
    """A resumed job adds to what its earlier runs have met; the first one stays the first."""
    before = replace(STATE, settled=50, not_stored=4, first_not_stored=12, gone=(Gone(0, 0, 10),))
    progress = Progress(before, refused={60}, gone=[Gone(0, 70, 80)])
    assert progress.at(50) == before
    assert progress.at(65) == replace(before, settled=65, not_stored=5)
    assert progress.at(100) == replace(before, settled=100, not_stored=5, gone=(Gone(0, 0, 10), Gone(0, 70, 80)))


def test_what_is_gone_is_told_once() -> None:
    """A session that ends before its commit meets the same gap again; what lies above a commit is of the next one."""
    met = [Gone(0, 20, 30), Gone(0, 20, 30), Gone(0, 50, 60)]
    progress = Progress(replace(STATE, gone=(Gone(0, 0, 10),)), gone=met)
    assert progress.at(20).gone == (Gone(0, 0, 10),)
    assert progress.at(40).gone == (Gone(0, 0, 10), Gone(0, 20, 30))
    assert Progress(progress.at(40), gone=met).at(100).gone == (Gone(0, 0, 10), Gone(0, 20, 30), Gone(0, 50, 60))


@given(
    st.lists(st.tuples(st.integers(10, 99), st.booleans()), unique_by=lambda each: each[0]).map(sorted),
    st.lists(st.integers(10, 100), max_size=4).map(sorted),
)
def test_kills_and_resumes_count_each_record_once(met: list[tuple[int, bool]], kills: list[int]) -> None:
    """However often a job is killed, at whatever commit: its end counts each record that was refused exactly once.

    Each run meets everything from its last commit on, and some of that again with the next run.
    """
    refused = {offset for offset, never in met if never}
    state = STATE
    for settled in (*kills, 100):
        progress = Progress(state, refused={offset for offset in refused if offset >= state.settled})
        state = read_note(0, settled, progress.at(settled).note())
    assert state.not_stored == len(refused)
    assert state.first_not_stored == min(refused, default=None)
    assert state.left == 0


def test_how_far_a_job_is() -> None:
    """Offsets left of a partition, and settled and in all of the job; a commit beyond the end is the end."""
    assert STATE.left == 90
    assert replace(STATE, settled=100).left == 0
    assert replace(STATE, settled=120).left == 0
    assert total({0: replace(STATE, settled=40), 1: replace(STATE, settled=120)}) == (30 + 90, 180)
    assert total({}) == (0, 0)


def test_a_jobs_group_stands_under_the_uploaders() -> None:
    """One prefixed ACL allows both, and two jobs never share a group."""
    assert group_of("spillway-uploader", "outage-1") == "spillway-uploader.job.outage-1"


@given(st.sets(st.integers(0, 40)))
def test_partitions_are_spelled_and_missed(begun: set[int]) -> None:
    """Of those that were begun together, exactly those without a state: a job of half of them is not whole."""
    spelled = replace(PURPOSE, partitions=spell(begun))
    kept = {number for number in begun if number % 3}
    states = {number: replace(STATE, purpose=spelled) for number in kept}
    assert lost(states) == (sorted(begun - kept) if kept else [])


def test_partitions_take_few_characters() -> None:
    """A note has 4 KiB for everything."""
    assert spell(range(1000)) == "0-999"
    assert spell([3, 1, 2, 7, 9, 10]) == "1-3,7,9-10"
    assert spell([]) == ""
