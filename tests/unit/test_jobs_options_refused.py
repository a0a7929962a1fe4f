"""What may not be typed behind `replay` and `verify`: each contradiction has its own line, and names its options."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.uploader.cli import parse
from services.uploader.jobs.options import (
    OptionsError,
)
from services.uploader.jobs.replay.request import ReplayRequest, request_of

NOW_MS = round(datetime(2026, 11, 25, 9, tzinfo=UTC).timestamp() * 1000)
HOUR_MS = 3_600_000


def asked(*argv: str) -> ReplayRequest:
    return request_of(parse(["replay", *argv]), NOW_MS, "new-name", "payloads")


def refusal(*argv: str) -> str:
    """The one line with which these options are refused."""
    with pytest.raises(OptionsError) as caught:
        asked(*argv)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.fixture
def missing(tmp_path: Path) -> Path:
    path = tmp_path / "missing.jsonl"
    path.write_text(
        '{"topic": "payloads", "partition": 0, "offset": 7}\n{"partition": 2, "offset": 5}\n'
        '{"partition": 0, "offset": 3}\n'
    )
    return path


OF_THE_JOB = [
    ("--from", "2h"),
    ("--to", "now"),
    ("--folder", "f"),
    ("--id", "i"),
    ("--only-missing",),
    ("--to-bucket", "bbb"),
    ("--to-prefix", "p"),
    ("--job", "other"),
    ("--dry-run",),
]


@pytest.mark.parametrize("option", OF_THE_JOB, ids=lambda each: each[0])
def test_resume_refuses_what_the_job_was_started_with(option: tuple[str, ...]) -> None:
    """Each is named, so that nobody thinks that it was heard."""
    assert (
        refusal("--resume", "outage-1", *option)
        == f"--resume goes on with what the job was started with: leave {option[0]} out"
    )


def test_resume_names_all_that_is_too_much() -> None:
    """At once, not one at a time."""
    names = ", ".join(option[0] for option in OF_THE_JOB)
    assert f"leave {names} out" in refusal("--resume", "x", *(word for option in OF_THE_JOB for word in option))


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ((), "--from is missing: where does the range begin?"),
        (("--to", "1h"), "--from is missing: where does the range begin?"),
        (("--only-missing", "--job", "x"), "--from is missing: where does the range begin?"),
        (("--from", "p0:1-2", "--to", "now"), "--from has offsets, both ends of the range: leave --to out"),
        (("--from", "1h", "--to", "2h"), "the range is empty: --to=2h is not after --from=1h"),
        (("--from", "1h", "--to", "1h"), "the range is empty: --to=1h is not after --from=1h"),
        (("--from", "p0:1-2", "--partitions", "1-3"), "--partitions has none of the partitions of --from"),
        (("--from", "1h", "--job", "a b"), "a job's name is 1 to 64 of A-Z a-z 0-9 . _ -, and 'a b' is not"),
        (("--from", "1h", "--job", ""), "a job's name is 1 to 64 of A-Z a-z 0-9 . _ -, and '' is not"),
        (("--resume", ""), "a job's name is 1 to 64 of A-Z a-z 0-9 . _ -, and '' is not"),
        (("--from", "1h", "--job", "a/b"), "a job's name is 1 to 64 of A-Z a-z 0-9 . _ -, and 'a/b' is not"),
        (("--from", "1h", "--job", "x" * 65), f"a job's name is 1 to 64 of A-Z a-z 0-9 . _ -, and '{'x' * 65}' is not"),
        (("--from", "1h", "--job", "a\n"), "a job's name is 1 to 64 of A-Z a-z 0-9 . _ -, and 'a\\n' is not"),
        (("--from", "1h", "--partitions", "1-x"), "--partitions: '1-x' is not of the form 0,3,5-7"),
        (("--resume", "x", "--partitions", ""), "--partitions: '' is not of the form 0,3,5-7"),
    ],
)
def test_what_contradicts_itself(argv: tuple[str, ...], line: str) -> None:
    """Each contradiction has its own line, in the words of the options."""
    assert refusal(*argv) == line


@pytest.mark.parametrize(
    ("argv", "begins"),
    [
        (("--from", "x"), "--from: 'x' is no time and no offsets. Forms: "),
        (("--from", ""), "--from: '' is no time and no offsets. Forms: "),
        (("--from", "2026-11-26"), "--from: '2026-11-26' lies in the future (2026-11-26T00:00:00Z; it is "),
        (("--from", "p0:2-1"), "--from: 'p0:2-1' ends before it begins"),
        (("--from", "1h", "--to", "x"), "--to: 'x' is no time and no offsets. Forms: "),
        (("--from", "1h", "--to", "beginning"), "--to: 'beginning' is no upper bound"),
        (("--from", "1h", "--to", "p0:1-2"), "--to: 'p0:1-2' is no upper bound"),
        (("--from", "1h", "--folder", "../up"), "--folder: '../up' is no folder"),
        (("--from", "1h", "--folder", "a//b"), "--folder: 'a//b' is no folder"),
        (("--from", "1h", "--folder", ""), "--folder: '' is no folder"),
        (("--from", "1h", "--folder", "a/"), "--folder: 'a/' is no folder"),
        (("--from", "1h", "--to-prefix", ""), "--to-prefix: '' has characters other than"),
        (("--from", "1h", "--to-prefix", "/"), "--to-prefix: '/' has characters other than"),
        (("--from", "1h", "--to-prefix", "a b"), "--to-prefix: 'a b' has characters other than"),
        (("--from", "1h", "--to-prefix", "a/../b"), "--to-prefix: 'a/../b' has characters other than"),
        (("--from", "1h", "--to-prefix", "{id}"), "--to-prefix: '{id}' has characters other than"),
    ],
)
def test_what_is_no_such_value(argv: tuple[str, ...], begins: str) -> None:
    """The option is named, then what is wrong with its value."""
    assert refusal(*argv).startswith(begins)


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (("--rate", "0"), "--rate"),
        (("--rate", "-5"), "--rate"),
        (("--rate", "fast"), "--rate"),
        (("--rate", "nan"), "--rate"),
        (("--rate", "inf"), "--rate"),
        (("--give-up-after", "0"), "--give-up-after"),
        (("--output", "xml"), "--output"),
        (("--to-bucket", ""), "--to-bucket"),  # "$NEW" with no NEW: never S3_BUCKET
        (("--id", ""), "--id"),  # no record has it: nothing would be done, and exit 0 say that all is there
        (("--id", " "), "--id"),
        (("--limit", "5"), "--limit"),
    ],
)
def test_what_argparse_refuses(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], option: str) -> None:
    """Exit code 2, and the option by its name on standard error; nothing on standard output."""
    with pytest.raises(SystemExit) as caught:
        parse(["replay", "--from", "2h", *argv])
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.search(rf"error: .*{option}\b", told.err.splitlines()[-1])


@pytest.mark.parametrize("argv", [("--to-bucket", ""), ("--id", ""), ("--output", "xml"), ("--only-missing",)])
def test_verify_refuses_the_same(argv: tuple[str, ...]) -> None:
    """And what is of replay alone."""
    with pytest.raises(SystemExit, match="2"):
        parse(["verify", "--from", "2h", *argv])


def test_a_file_and_a_range_contradict(missing: Path) -> None:
    """With either end."""
    for argv in (("--from", "2h"), ("--to", "1h"), ("--from", "p0:1-2"), ("--from", "2h", "--to", "1h")):
        assert refusal("--from-file", str(missing), *argv) == "--from-file names the records: leave --from and --to out"


def test_a_file_and_partitions_that_have_nothing_in_common(missing: Path) -> None:
    """Nothing would be done, and exit 0 say that it was."""
    line = "--partitions has none of the partitions of --from-file"
    assert refusal("--from-file", str(missing), "--partitions", "1,3") == line


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "--from-file: {path} names no record; there is nothing to do"),
        ("\n \n", "--from-file: {path} names no record; there is nothing to do"),
        ("x\n", '--from-file: {path}, line 1: not of the form {{"partition": 0, "offset": 1}}'),
        (
            '{"topic": "other", "partition": 0, "offset": 0}',
            "--from-file is of topic other, and KAFKA_TOPIC=payloads",
        ),
        (None, "--from-file: {path}: No such file or directory"),
    ],
)
def test_a_file_that_is_no_such_file(tmp_path: Path, content: str | None, line: str) -> None:
    """In one line, with the file's name; the records of another topic are not looked for in this one."""
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    assert refusal("--from-file", str(path)) == line.format(path=path)
