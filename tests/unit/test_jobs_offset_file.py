"""The file between `verify --missing-to` and `replay --from-file`: whole or not there, each line a record."""

import contextlib
import hashlib
import json
import os
import re
import resource
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.jobs.offset_file import (
    InvalidFileError,
    OffsetFile,
    OffsetWriter,
    UnwritableFileError,
    read_offsets,
)

LINE = b'{"topic": "payloads", "partition": 0, "offset": 7}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "missing.jsonl"


def written(path: Path, *entries: dict[str, object]) -> None:
    with OffsetWriter(path) as file:
        for entry in entries:
            file.write(entry)
        file.keep()


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_what_is_written_is_read(path: Path) -> None:
    """Records with all that verify says of them, in any order, some twice, and in any alphabet."""
    more = {"topic": "payloads", "topic_id": "an id", "key": "f/ä\u2028\r\n", "why": "it has 3 bytes, not 4\x85"}
    written(path, *({"partition": p, "offset": o, **more} for p, o in ((3, 9), (0, 2**62), (3, 1), (3, 9))))
    assert read_offsets(path) == OffsetFile(
        "payloads",
        "an id",
        {3: frozenset({1, 9}), 0: frozenset({2**62})},
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    assert names_in(path.parent) == ["missing.jsonl"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2**63 - 1), st.text(max_size=10))))
def test_any_records_and_texts(tmp_path_factory: pytest.TempPathFactory, met: list[tuple[int, int, str]]) -> None:
    """A text never makes two lines of one record."""
    path = tmp_path_factory.mktemp("any") / "file"
    written(path, *({"partition": partition, "offset": offset, "why": why} for partition, offset, why in met))
    found = read_offsets(path)
    assert {(partition, offset) for partition, each in found.offsets.items() for offset in each} == {
        (partition, offset) for partition, offset, _ in met
    }
    assert len(path.read_bytes().splitlines()) == len(met)


def test_nothing_missing_is_an_empty_file(path: Path) -> None:
    """It is there, so that a script can tell it from a verify that did not come to its end."""
    written(path)
    assert path.read_bytes() == b""
    assert read_offsets(path).offsets == {}


def test_a_file_of_somebody_else(path: Path) -> None:
    """By hand, from Windows, with empty lines, without a topic."""
    path.write_bytes(b'\xef\xbb\xbf{"partition":1,"offset":0}\r\n\r\n  \n{"offset":5,"partition":1,"x":[]}')
    assert read_offsets(path) == OffsetFile(
        None, None, {1: frozenset({0, 5})}, hashlib.sha256(path.read_bytes()).hexdigest()
    )


def test_another_byte_is_another_file(path: Path) -> None:
    """By its sum a job knows whether it goes on with the same records."""
    path.write_bytes(LINE)
    before = read_offsets(path)
    path.write_bytes(LINE + b"\n")
    assert read_offsets(path).offsets == before.offsets
    assert read_offsets(path).sum != before.sum


NO_RECORD = 'not of the form {"partition": 0, "offset": 1}'
NO_NUMBER = "partition and offset are numbers from 0"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"nothing", NO_RECORD),
        (b"{", NO_RECORD),
        (b"[]", NO_RECORD),
        (b"[1, 2]", NO_RECORD),
        (b"5", NO_RECORD),
        (b"null", NO_RECORD),
        (b'"partition offset"', NO_RECORD),
        (b"{}", NO_RECORD),
        (b'{"partition": 0}', NO_RECORD),
        (b'{"offset": 0}', NO_RECORD),
        (LINE.strip() + LINE.strip(), NO_RECORD),
        (b"\xff\xfe", NO_RECORD),
        (b"\x00", NO_RECORD),
        (b"[" * 100_000, NO_RECORD),
        (b'{"partition": 0, "offset": ' + b"9" * 5000 + b"}", NO_RECORD),
        (b'{"partition": -1, "offset": 1}', NO_NUMBER),
        (b'{"partition": 0, "offset": -1}', NO_NUMBER),
        (b'{"partition": "0", "offset": 1}', NO_NUMBER),
        (b'{"partition": 0, "offset": 1.0}', NO_NUMBER),
        (b'{"partition": 0, "offset": 1e3}', NO_NUMBER),
        (b'{"partition": true, "offset": 1}', NO_NUMBER),
        (b'{"partition": 0, "offset": null}', NO_NUMBER),
        (b'{"partition": 0, "offset": NaN}', NO_NUMBER),
    ],
    ids=lambda each: repr(each[:32]),
)
def test_a_broken_line_is_named(path: Path, line: bytes, says: str) -> None:
    """Whatever is wrong: the file and the number of the line, as an editor counts it, and what it should be."""
    path.write_bytes(LINE + b"\n" + line + b"\n" + LINE)
    with pytest.raises(InvalidFileError, match=re.escape(f"{path}, line 3: {says}")):
        read_offsets(path)


@given(st.binary(max_size=60))
def test_no_file_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Any bytes are records, or an InvalidFileError."""
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(content)
    with contextlib.suppress(InvalidFileError):
        assert all(read_offsets(path).offsets.values())


def test_records_of_two_topics_are_refused(path: Path) -> None:
    """The offsets of one topic mean nothing in another."""
    path.write_bytes(LINE + LINE.replace(b"payloads", b"dead"))
    with pytest.raises(InvalidFileError, match="names records of several topics: dead, payloads"):
        read_offsets(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """It is named, with the reason of the system."""
    with pytest.raises(InvalidFileError, match=re.escape(f"{tmp_path / 'no'}: No such file")):
        read_offsets(tmp_path / "no")
    with pytest.raises(InvalidFileError, match=re.escape(f"{tmp_path}: Is a directory")):
        read_offsets(tmp_path)


# -- whole, or not at all


def test_it_appears_at_keep(path: Path) -> None:
    """Before, the place is as it was: the file of the day before, say."""
    path.write_bytes(LINE)
    with OffsetWriter(path) as file:
        file.write({"partition": 1, "offset": 1})
        assert path.read_bytes() == LINE
        file.keep()
        assert json.loads(path.read_bytes()) == {"partition": 1, "offset": 1}
    assert json.loads(path.read_bytes()) == {"partition": 1, "offset": 1}
    assert names_in(path.parent) == ["missing.jsonl"]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_what_was_not_kept_leaves_nothing(path: Path, error: type[BaseException] | None) -> None:
    """An interrupted verify leaves neither half a file nor its beginnings."""
    path.write_bytes(LINE)
    with contextlib.suppress(RuntimeError, KeyboardInterrupt), OffsetWriter(path) as file:
        file.write({"partition": 1, "offset": 1})
        if error is not None:
            raise error
    assert path.read_bytes() == LINE
    assert names_in(path.parent) == ["missing.jsonl"]


@pytest.fixture
def _small_files() -> Iterator[None]:
    """Files of at most 64 KiB: a write beyond fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("_small_files")
@pytest.mark.parametrize(
    ("lines", "line_bytes"),
    [
        (1, 70_000),
        (1000, 120),
        (1009, 65),  # 49 bytes too much: they are still in memory at `keep`, and once more when the file is closed
    ],
)
def test_a_full_disk_is_told_and_leaves_nothing(path: Path, lines: int, line_bytes: int) -> None:
    """At the line that does not fit, or at `keep` where the rest was in memory: one error, which names the file."""
    path.write_bytes(LINE)
    entry: dict[str, object] = {"partition": 0, "offset": 1, "why": ""}
    entry["why"] = "x" * (line_bytes - len(json.dumps(entry)) - 1)
    with pytest.raises(UnwritableFileError, match=re.escape(f"{path}: File too large")):
        written(path, *[entry] * lines)
    assert path.read_bytes() == LINE
    assert names_in(path.parent) == ["missing.jsonl"]


def test_a_place_that_takes_no_file_is_told_at_the_start(tmp_path: Path) -> None:
    """Before an hour of comparing, not after: no directory, a file where one should be, a directory in its place."""
    (tmp_path / "file").touch()
    for path, says in (
        (tmp_path / "no" / "missing", "No such file or directory"),
        (tmp_path / "file" / "missing", "Not a directory"),
        (tmp_path, "not a regular file"),
    ):
        with pytest.raises(UnwritableFileError, match=re.escape(f"{path}: {says}")), OffsetWriter(path):
            pass
    assert names_in(tmp_path) == ["file"]


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    """`--missing-to /dev/stdout`, as root, would leave the machine without one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/null")):
        with pytest.raises(UnwritableFileError, match="not a regular file"), OffsetWriter(path):
            pass
        assert not stat.S_ISREG(path.stat().st_mode)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What it points to gets the records, in another directory too, and where there is nothing yet."""
    (tmp_path / "far").mkdir()
    link, target = tmp_path / "link", tmp_path / "far" / "target"
    link.symlink_to(target)
    for offset in (1, 2):
        written(link, {"partition": 0, "offset": offset})
        assert link.is_symlink()
        assert read_offsets(target).offsets == {0: frozenset({offset})}
    assert names_in(tmp_path / "far") == ["target"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_it_has_the_mode_of_any_new_file(path: Path, umask: int) -> None:
    """Not that of a temporary one, which its owner alone can read; and the umask is as it was."""
    before = os.umask(umask)
    try:
        written(path)
        (path.parent / "any").touch()
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((path.parent / "any").stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    finally:
        assert os.umask(before) == umask


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    """A verify without --missing-to uses the same writer."""
    with contextlib.chdir(tmp_path), OffsetWriter(None) as file:
        file.write({"partition": 0, "offset": 1})
        file.keep()
    assert names_in(tmp_path) == []
