"""`spillway-ingest token`: what it prints is what the file lets in, and a file is changed whole or not at all."""

import argparse
import fcntl
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.ingest import token_command
from services.ingest.tokens import Token, Tokens

OWN = "brought-by-the-client-0123456789"
OWN_HASH = hashlib.sha256(OWN.encode()).hexdigest()
MADE = re.compile(r"spw_[A-Za-z0-9_-]{43}")


class Shell:
    """Runs the command in this process, with what it reads and what it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self._parser = argparse.ArgumentParser(prog="spillway-ingest")
        token_command.add_parser(self._parser.add_subparsers(dest="command"))

    def __call__(self, *arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = token_command.run(self._parser.parse_args(["token", *map(str, arguments)]))
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def made(self, *arguments: str | Path) -> tuple[str, dict[str, object]]:
        """The token and the entry, as a program would read them."""
        code, out, err = self(*arguments, "--output", "json")
        assert (code, err) == (0, "")
        answer = json.loads(out)
        return answer["token"], answer["entry"]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A tokens file with one client, as a person may have written it."""
    file = tmp_path / "tokens.json"
    file.write_text(
        f'[{{"name": "old", "sha256": "{OWN_HASH}",\n "folder": "f/g", "requests_per_s": 5, "bytes_per_s": null}}]'
    )
    return file


def test_a_new_token_and_its_entry(shell: Shell) -> None:
    """The entry lets the token in, with what was asked for; a scanner can tell it; no two are the same."""
    token, entry = shell.made("ci", "--folder", "a/b", "--requests-per-s", "2.5", "--bytes-per-s", "1e6")
    assert MADE.fullmatch(token)
    found = Tokens.parse(json.dumps([entry]).encode()).find(token.encode())
    assert found == Token("ci", hashlib.sha256(token.encode()).digest(), "a/b", False, 2.5, 1e6)
    again, other = shell.made("ci")
    assert again != token
    assert other.keys() == {"name", "sha256"}


def test_a_person_is_shown_the_token_once(shell: Shell) -> None:
    """In words, with the entry to paste; the token stands there exactly once."""
    code, out, err = shell("ci")
    assert (code, err) == (0, "")
    (token,) = MADE.findall(out)
    assert f'{{"name": "ci", "sha256": "{hashlib.sha256(token.encode()).hexdigest()}"}}' in out


def test_the_entry_is_added_to_a_file(shell: Shell, path: Path) -> None:
    """Beside those that are there, which stay as they are; nothing else is left in the directory, and no token."""
    before = json.loads(path.read_text())
    path.chmod(0o604)
    token, entry = shell.made("ci", "--file", path)
    assert json.loads(path.read_text()) == [*before, entry]
    assert {name: bool(Tokens.parse(path.read_bytes()).find(name.encode())) for name in (token, OWN)} == {
        token: True,
        OWN: True,
    }
    assert path.stat().st_mode & 0o7777 == 0o604
    assert list(path.parent.iterdir()) == [path]
    assert token not in path.read_text()


def test_a_file_that_is_not_there_is_made(shell: Shell, tmp_path: Path) -> None:
    """With its first entry, and not for everybody to read."""
    token, _ = shell.made("ci", "--file", tmp_path / "new.json")
    assert Tokens.parse((tmp_path / "new.json").read_bytes()).find(token.encode())
    assert (tmp_path / "new.json").stat().st_mode & 0o7777 == 0o640


def test_a_link_stays_a_link(shell: Shell, path: Path) -> None:
    """The file that it leads to is changed."""
    link = path.with_name("link.json")
    link.symlink_to(path.name)
    token, _ = shell.made("ci", "--file", link)
    assert link.is_symlink()
    assert Tokens.parse(path.read_bytes()).find(token.encode())


def test_a_second_token_of_a_client_takes_over_its_folder_and_rates(shell: Shell, path: Path) -> None:
    """So a rotation is one command: both tokens are let in, as the same client."""
    code, out, err = shell("old", "--file", path)
    assert (code, err) == (0, "")
    assert "old has 2 tokens there now" in out
    (token,) = MADE.findall(out)
    tokens = Tokens.parse(path.read_bytes())
    for secret in (token, OWN):
        found = tokens.find(secret.encode())
        assert found is not None
        assert (found.name, found.folder, found.requests_per_s, found.disabled) == ("old", "f/g", 5, False)


def test_a_disabled_token_does_not_disable_the_next(shell: Shell, path: Path) -> None:
    """A client whose token leaked gets a new one, while the old one stays shut."""
    path.write_text(f'[{{"name": "old", "sha256": "{OWN_HASH}", "disabled": true}}]')
    token, _ = shell.made("old", "--file", path)
    tokens = Tokens.parse(path.read_bytes())
    found = {secret: tokens.find(secret.encode()) for secret in (token, OWN)}
    assert {secret: each and each.disabled for secret, each in found.items()} == {token: False, OWN: True}


def hold_lock(path: Path) -> Callable[[], None]:
    lock = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lambda: os.close(lock)


@pytest.mark.parametrize(
    ("spoil", "arguments", "reason"),
    [
        (lambda path: path.write_text("[{}]"), ["ci"], "tokens.json: entry [0]: name is missing"),
        (lambda path: path.write_text("["), ["ci"], "tokens.json: not JSON: Expecting value at line 1, column 2"),
        (lambda _: None, ["old", "--folder", "other"], "tokens.json: entry [1], name old: folder differs from entry"),
        (lambda _: None, ["old", "--requests-per-s", "6"], "requests_per_s differs from entry [0]"),
        (lambda _: None, ["ci", "--hash"], f"entry [1], name ci: sha256 {OWN_HASH[:8]}… stands in entry [0]"),
        (hold_lock, ["ci"], "tokens.json: another command is changing it; try again"),
    ],
)
def test_what_cannot_be_added_leaves_the_file_as_it_was(
    spoil: Callable[[Path], object], arguments: list[str], reason: str, shell: Shell, path: Path
) -> None:
    """One clear line, no token shown, and not a byte of the file changed."""
    release = spoil(path)
    before = path.read_bytes()
    code, out, err = shell(*arguments, "--file", path, stdin=OWN.encode())
    if callable(release):
        release()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert reason in err
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("where", ["", "absent/tokens.json"])
def test_a_place_that_is_no_file_is_refused(where: str, shell: Shell, tmp_path: Path) -> None:
    """A directory, or a path in none: the message names it, and no token is shown."""
    code, out, err = shell("ci", "--file", tmp_path / where)
    assert (code, out) == (2, "")
    assert str(tmp_path / where) in err


def test_a_full_disk_shows_no_token(path: Path) -> None:
    """As a process whose files may not grow (`ulimit -f 0`): the old file stays, nothing is left beside it."""
    before = path.read_bytes()
    command = [sys.executable, "-B", "-m", "services.ingest", "token", "ci", "--file", str(path)]
    shown = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == f"error: {path}: File too large\n"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_token_of_ones_own_is_read_and_not_shown(end: str, shell: Shell) -> None:
    """The line's end is no part of it; without a name there is only the hash, for an entry that is written by hand."""
    stdin = (OWN + end).encode()
    assert shell("--hash", stdin=stdin) == (0, f"{OWN_HASH}\n", "")
    code, out, err = shell("--hash", "--output", "json", stdin=stdin)
    assert (code, json.loads(out), err) == (0, {"sha256": OWN_HASH}, "")
    code, out, err = shell("ci", "--hash", "--output", "json", stdin=stdin)
    assert (code, json.loads(out), err) == (0, {"entry": {"name": "ci", "sha256": OWN_HASH}}, "")
    code, out, err = shell("ci", "--hash", stdin=stdin)
    assert (code, OWN_HASH in out, OWN in out, err) == (0, True, False, "")


@pytest.mark.parametrize(
    ("stdin", "reason"),
    [
        (b"", "no token on standard input"),
        (b"\n", "no token on standard input"),
        (OWN.encode() + b"\nmore", "one line of printable ASCII without spaces"),
        (b"a token with spaces in it", "one line of printable ASCII without spaces"),
        ("zwölf-und-noch-ein-paar".encode(), "one line of printable ASCII without spaces"),
        (b"\xff" * 20, "one line of printable ASCII without spaces"),
        (b"123456789012345", "a token has 16 to 1024 characters"),
        (b"1" * 1025, "a token has 16 to 1024 characters"),
        (b"1" * 100_000, "a token has 16 to 1024 characters"),
    ],
)
def test_a_bad_token_of_ones_own_is_refused(stdin: bytes, reason: str, shell: Shell) -> None:
    """What no header could carry, or what could be guessed; the message does not repeat it."""
    code, out, err = shell("ci", "--hash", stdin=stdin)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert reason in err
    brought = stdin.decode("latin-1").strip()[:15]
    assert not brought or brought not in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "NAME is missing"),
        (["--file", "x.json", "--hash"], "NAME is missing"),
        (["a b"], "argument NAME: must be 1 to 64 of A-Z a-z 0-9 . _ -"),
        (["a" * 65], "argument NAME: must be 1 to 64"),
        (["spw_0123456789"], "argument NAME: must be 1 to 64"),
        (["ci", "--folder", "../etc"], "argument --folder: must be `/`-parted names"),
        (["ci", "--folder", OWN_HASH], "folder: holds a token or a hash"),
        (["ci", "--requests-per-s", "0"], "argument --requests-per-s: must be a number from 0.001 to 1e+12"),
        (["ci", "--requests-per-s", "nan"], "argument --requests-per-s: must be a number"),
        (["ci", "--bytes-per-s", "inf"], "argument --bytes-per-s: must be a number"),
        (["ci", "--bytes-per-s", "10MB"], "argument --bytes-per-s: must be a number"),
    ],
)
def test_a_bad_argument_is_named(arguments: list[str], reason: str, shell: Shell) -> None:
    """Exit code 2, nothing on standard output, and what was given is not repeated: it may be a token."""
    code, out, err = shell(*arguments)
    assert (code, out) == (2, "")
    assert reason in err
    assert "spw_0" not in err


def test_it_is_a_command_of_the_console_script(path: Path) -> None:
    """Without any setting in the environment, which would be needed to serve."""
    run = subprocess.run(
        [sys.executable, "-m", "services.ingest", "token", "ci", "--file", str(path), "--output", "json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"], "KAFKA_PRODUCE_TIMEOUT_S": "nonsense"},
    )
    token = json.loads(run.stdout)["token"]
    assert Tokens.parse(path.read_bytes()).find(token.encode())
