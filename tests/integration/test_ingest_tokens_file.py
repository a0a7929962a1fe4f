"""The tokens file on a real disk: every way it is changed is noticed, and nothing but a good file is ever in force."""

import asyncio
import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.ingest.tokens import TOKEN_PREFIX, InvalidTokensError, Tokens
from services.ingest.tokens_file import FILE_BYTES_MAX, TokensFile
from shared.log import JsonFormatter
from shared.telemetry import IngestMetrics
from tests.harness.waiting import until

DEADLINE_S = 20
SECRET = TOKEN_PREFIX + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
HASH = hashlib.sha256(SECRET.encode()).hexdigest()


def content(*names: str) -> bytes:
    """A file whose clients have their own names as tokens."""
    return json.dumps([{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in names]).encode()


class Bench:
    """A tokens file with what it tells: its metrics, its calls, its log."""

    def __init__(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        self._caplog = caplog
        self.registry = CollectorRegistry()
        self.calls: list[str] = []
        self.called = asyncio.Event()
        self.file = TokensFile(path, metrics=IngestMetrics(self.registry), changed=self._note)

    def _note(self, tokens: Tokens) -> None:
        self.calls.append(" ".join(sorted(tokens.names)))
        self.called.set()

    def look(self) -> None:
        asyncio.run(self.file.look())

    @property
    def names(self) -> str:
        return " ".join(sorted(self.file.tokens.names))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Changes taken, changes refused, whether the file is refused now; -1 for a metric that is not there."""
        values = [
            self.registry.get_sample_value("spillway_ingest_tokens_reloads_total", {"outcome": outcome})
            for outcome in ("taken", "refused")
        ]
        values.append(self.registry.get_sample_value("spillway_ingest_tokens_refused"))
        taken, refused, now = (-1 if value is None else int(value) for value in values)
        return taken, refused, now

    def told(self) -> list[tuple[str, str]]:
        """Level and reason of each line of the log, and the log is empty again."""
        lines = [
            json.loads(JsonFormatter().format(record))
            for record in self._caplog.records
            if record.name == "spillway.ingest.tokens"
        ]
        self._caplog.clear()
        return [(line["level"], line.get("reason", line["message"])) for line in lines]


MakeBench = Callable[[], Bench]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.json"
    file.write_bytes(content("a"))
    return file


@pytest.fixture
def make_bench(path: Path, caplog: pytest.LogCaptureFixture) -> MakeBench:
    return lambda: Bench(path, caplog)


def rename_over(path: Path, text: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(text)
    beside.replace(path)


@pytest.mark.parametrize("write", [Path.write_bytes, rename_over], ids=["in place", "by rename"])
def test_a_changed_file_is_taken(write: Callable[[Path, bytes], object], path: Path, make_bench: MakeBench) -> None:
    """However an editor writes: at the next look, once, with a line in the log, and what depends on it is called."""
    bench = make_bench()
    assert bench.names == "a"
    for _ in range(3):
        bench.look()
    assert (bench.calls, bench.counts, bench.told()) == ([], (0, 0, 0), [])
    write(path, content("a", "b"))
    for _ in range(3):
        bench.look()
    assert bench.names == "a b"
    assert bench.calls == ["a b"]
    assert bench.counts == (1, 0, 0)
    assert bench.told() == [("info", "the tokens file was taken")]


def test_a_mounted_secret_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Kubernetes moves one link, `..data`, above a link that stays; size and time of both files may be equal."""
    for version, name in (("..1", "a"), ("..2", "b")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "tokens.json").write_bytes(content(name))
        os.utime(tmp_path / version / "tokens.json", ns=(1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "tokens.json").symlink_to("..data/tokens.json")
    bench = Bench(tmp_path / "tokens.json", caplog)
    for _ in range(3):
        bench.look()
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    bench.look()
    assert (bench.names, bench.counts) == ("b", (1, 0, 0))


def test_a_write_within_the_same_tick_is_taken(path: Path, make_bench: MakeBench) -> None:
    """Same file, same size, same time of change: only reading it a second time can tell."""
    before = path.stat()
    bench = make_bench()
    path.write_bytes(content("b"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    bench.look()
    assert bench.names == "b"


def test_a_bad_file_changes_nothing_and_is_told_once(path: Path, make_bench: MakeBench) -> None:
    """The last good tokens stay in force; one error a change, with the reason; the gauge stands until it is mended."""
    bench = make_bench()
    path.write_bytes(b'[{"name": "b"}]')
    for _ in range(3):
        bench.look()
    assert (bench.names, bench.calls, bench.counts) == ("a", [], (0, 1, 1))
    assert bench.told() == [("error", "entry [0], name b: sha256 is missing")]
    path.write_bytes(b"[")
    for _ in range(3):
        bench.look()
    assert (bench.names, bench.counts) == ("a", (0, 2, 1))
    assert [level for level, _ in bench.told()] == ["error"]
    path.write_bytes(content("c"))
    bench.look()
    assert (bench.names, bench.counts) == ("c", (1, 2, 0))
    assert bench.told() == [("info", "the tokens file was taken")]


def test_a_file_that_goes_locks_nobody_out(path: Path, make_bench: MakeBench) -> None:
    """Told once; and told that it is well again when the same file comes back."""
    bench = make_bench()
    away = path.rename(path.with_suffix(".away"))
    for _ in range(3):
        bench.look()
    assert (bench.names, bench.counts) == ("a", (0, 1, 1))
    assert bench.told() == [("error", "No such file or directory")]
    away.rename(path)
    bench.look()
    assert (bench.names, bench.counts) == ("a", (1, 1, 0))
    assert bench.told() == [("info", "the tokens file was taken")]


def test_no_half_of_a_file_is_in_force(path: Path, make_bench: MakeBench) -> None:
    """Seen at every byte of a slow write in place: the old tokens until the last byte of the new is there."""
    bench = make_bench()
    new = content("b", "c")
    for length in range(len(new)):
        path.write_bytes(new[:length])
        bench.look()
        assert bench.names == "a", f"{length} of {len(new)} bytes were taken"
    path.write_bytes(new)
    bench.look()
    assert bench.names == "b c"


async def test_it_looks_by_itself(path: Path, make_bench: MakeBench) -> None:
    """`run` looks again and again, past bad files too, until it is cancelled."""
    bench = make_bench()
    task = asyncio.create_task(bench.file.run(every_s=0.001))
    async with asyncio.timeout(DEADLINE_S):
        rename_over(path, b"bad")
        await asyncio.to_thread(until, lambda: bench.counts[1], "the bad file to be seen", deadline_s=DEADLINE_S)
        rename_over(path, content("b"))
        await bench.called.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert bench.names == "b"


def test_a_start_without_a_good_file_is_refused(path: Path, make_bench: MakeBench) -> None:
    """There is no last good one: the reason is the caller's to tell."""
    path.write_bytes(b"{}")
    with pytest.raises(InvalidTokensError, match="must be a JSON list"):
        make_bench()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        make_bench()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("make", "reason"),
    [(make_pipe, "not a regular file"), (Path.mkdir, "not a regular file"), (make_huge, "over 16777216 bytes")],
)
def test_what_is_no_file_blocks_nothing(
    make: Callable[[Path], None], reason: str, path: Path, make_bench: MakeBench
) -> None:
    """A pipe that nobody writes to, a directory, a file without end: refused, at a start and at a look."""
    bench = make_bench()
    path.unlink()
    make(path)
    with pytest.raises(OSError, match=reason):
        make_bench()
    bench.look()
    assert bench.names == "a"
    assert bench.told() == [("error", reason)]


def test_no_token_and_no_hash_is_in_a_log_line(
    path: Path, make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a person pastes where: the whole log, as it goes out, is searched for the secret and for its hash."""
    bench = make_bench()
    lines = []
    for file in (
        [{"name": "ci", "sha256": HASH}],
        [{"name": "ci", "sha256": SECRET}],
        [{"name": SECRET, "sha256": HASH}],
        [{"name": HASH, "sha256": SECRET}],
        [{"name": "ci", "sha256": HASH, "folder": SECRET}],
        [{"name": "ci", "sha256": HASH, SECRET: 1}],
        [{"name": "ci", "sha256": HASH}, {"name": "b", "sha256": HASH}],
        {SECRET: HASH},
        [SECRET],
        SECRET,
    ):
        for text in (json.dumps(file).encode(), json.dumps(file).encode()[:-1] + b",\xff"):
            path.write_bytes(text)
            bench.look()
            lines += [JsonFormatter().format(record) for record in caplog.records]
            caplog.clear()
    assert sum("the tokens file was" in line for line in lines) == 20
    for line in lines:
        assert SECRET[:12] not in line
        assert HASH[:9] not in line


def test_a_file_that_could_not_be_read_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble that ends without a change of the file, a lack of descriptors, say: what it says is taken then."""
    path = tmp_path / "tokens.json"
    path.write_bytes(content("a"))
    bench = Bench(path, caplog)
    path.write_bytes(content("a", "b"))

    def no_more_files(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("services.ingest.tokens_file.os.open", no_more_files)
        for _ in range(3):
            bench.look()
    assert bench.names == "a"
    bench.look()
    assert bench.names == "a b"
