"""`spillway-ingest token`: makes a token and its entry for the tokens file, and can put the entry there.

Owns the command's arguments and what it prints. A token is printed once and kept nowhere; the file gets its hash. The
file is replaced whole or not at all, and a token is not shown before its entry is safe on disk.
"""

import argparse
import fcntl
import getpass
import json
import os
import secrets
import sys
import tempfile
from pathlib import Path

from services.ingest.tokens import (
    RATE_MAX,
    RATE_MIN,
    TOKEN_PREFIX,
    InvalidTokensError,
    Tokens,
    hash_of,
    is_token_name,
    parse_entries,
)
from shared.record import is_safe_folder

Entry = dict[str, object]

SECRET_BYTES = 32
OWN_TOKEN_CHARACTERS = range(16, 1025)
"""Lengths of a token that somebody brings. A short one could be guessed from its hash, which is a fast one."""

_NEW_FILE_MODE = 0o640


class RefusedCommandError(Exception):
    """What was asked for cannot be done; the message is for the person who asked."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand `token`."""
    parser = subparsers.add_parser(
        "token",
        help="make a token and its entry for the tokens file",
        description="Makes a new token for the client NAME and prints it, once, with its entry for INGEST_TOKENS_FILE.",
    )
    parser.add_argument("name", nargs="?", type=_name, metavar="NAME", help="the client: 1 to 64 of A-Z a-z 0-9 . _ -")
    parser.add_argument("--folder", type=_folder, help="first part of its S3 keys (default S3_FOLDER)")
    parser.add_argument("--requests-per-s", type=_rate, metavar="N", help="its quota, a process (default no limit)")
    parser.add_argument("--bytes-per-s", type=_rate, metavar="N", help="its quota of bodies, a process")
    parser.add_argument("--file", type=Path, metavar="PATH", help="add the entry to this tokens file")
    parser.add_argument(
        "--hash", action="store_true", help="read a token of your own from standard input instead of making one"
    )
    parser.add_argument("--output", choices=("text", "json"), default="text", help="(default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Make the token, add its entry if asked to, print both. Returns the exit code."""
    try:
        answer = _answer(arguments)
    except (RefusedCommandError, InvalidTokensError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        return 2
    print(answer)  # noqa: T201 - the command's answer
    return 0


def _answer(arguments: argparse.Namespace) -> str:
    if arguments.name is None and (not arguments.hash or arguments.file is not None):
        raise RefusedCommandError("NAME is missing: which client is the token for?")
    made = None if arguments.hash else TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    digest = hash_of((made or _own_token()).encode("ascii")).hex()
    as_json = arguments.output == "json"
    if arguments.name is None:
        return json.dumps({"sha256": digest}) if as_json else digest
    entry: Entry = {"name": arguments.name, "sha256": digest}
    for field in ("folder", "requests_per_s", "bytes_per_s"):
        if getattr(arguments, field) is not None:
            entry[field] = getattr(arguments, field)
    others = 0
    if arguments.file is None:
        Tokens.parse(json.dumps([entry]).encode())
    else:
        entry, others = _add(Path(os.path.realpath(arguments.file)), entry)
    if as_json:
        return json.dumps({**({"token": made} if made else {}), "entry": entry})
    return _text(made, entry, arguments.file, others)


def _text(made: str | None, entry: Entry, file: Path | None, others: int) -> str:
    lines = []
    if made is not None:
        lines += [f"token of {entry['name']}, shown this once and kept nowhere:", "", f"  {made}", ""]
    lines += ["its entry in the tokens file:" if file else "entry for the tokens file:", "", f"  {json.dumps(entry)}"]
    if file is not None:
        lines += ["", f"added to {file}"]
    if others:
        lines += [f"{entry['name']} has {others + 1} tokens there now: remove the old one once the client has moved"]
    return "\n".join(lines)


def _own_token() -> str:
    """The token on standard input, without the line's end; not echoed on a terminal."""
    if sys.stdin.isatty():
        raw = getpass.getpass("token: ")
    else:
        raw = sys.stdin.buffer.read(max(OWN_TOKEN_CHARACTERS) + 3).decode("latin-1").removesuffix("\n")
        raw = raw.removesuffix("\r")
    if not raw:
        raise RefusedCommandError("no token on standard input")
    if not all("!" <= character <= "~" for character in raw):
        raise RefusedCommandError("a token is one line of printable ASCII without spaces, or no header could carry it")
    if len(raw) not in OWN_TOKEN_CHARACTERS:
        least, most = min(OWN_TOKEN_CHARACTERS), max(OWN_TOKEN_CHARACTERS)
        raise RefusedCommandError(f"a token has {least} to {most} characters, and is random: short ones are guessed")
    return raw


def _add(path: Path, entry: Entry) -> tuple[Entry, int]:
    """Add the entry to the file; gives it back as it stands there, and how many others of its name do.

    An entry of a name that is there takes over its folder and rates, where none were asked for.

    Raises:
        RefusedCommandError: the file is not valid, would not be, or cannot be written.

    """
    try:
        lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two at once would lose one's entry
            entries, others = _entries(path, str(entry["name"]))
            added = {**entry, **others[0], **entry} if others else entry  # name and hash first, for the reader
            text = ("[\n" + ",\n".join(f"  {json.dumps(each)}" for each in [*entries, added]) + "\n]\n").encode()
            Tokens.parse(text)
            _replace(path, text)
            os.fsync(lock)
        finally:
            os.close(lock)
    except BlockingIOError:
        raise RefusedCommandError(f"{path}: another command is changing it; try again") from None
    except InvalidTokensError as error:
        raise RefusedCommandError(f"{path}: {error}") from None
    except OSError as error:
        raise RefusedCommandError(f"{path}: {error.strerror or error}") from None
    return added, len(others)


def _entries(path: Path, name: str) -> tuple[list[Entry], list[Entry]]:
    """All entries of the file, and what those of the name share; none where there is no file yet."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return [], []
    parse_entries(text)
    entries: list[Entry] = json.loads(text.decode("utf-8-sig"))
    of_name = [
        {key: value for key, value in each.items() if key not in {"sha256", "disabled"} and value is not None}
        for each in entries
        if each["name"] == name
    ]
    return entries, of_name


def _replace(path: Path, text: bytes) -> None:
    """Write the file whole or not at all: beside it, to the disk, then over it. Mode and owner stay.

    Raises:
        OSError: it is as it was.

    """
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            try:
                status = path.stat()
            except FileNotFoundError:
                os.fchmod(descriptor, _NEW_FILE_MODE)
            else:
                ours = os.fstat(descriptor)
                if (status.st_uid, status.st_gid) != (ours.st_uid, ours.st_gid):
                    os.fchown(descriptor, status.st_uid, status.st_gid)  # else the server may not read it any more
                os.fchmod(descriptor, status.st_mode & 0o7777)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _name(text: str) -> str:
    if not is_token_name(text):
        raise argparse.ArgumentTypeError("must be 1 to 64 of A-Z a-z 0-9 . _ -, and no token or hash")
    return text


def _folder(text: str) -> str:
    if not is_safe_folder(text):
        raise argparse.ArgumentTypeError("must be `/`-parted names of A-Z a-z 0-9 . _ = -, none of them `.` or `..`")
    return text


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not RATE_MIN <= value <= RATE_MAX:
        raise argparse.ArgumentTypeError(f"must be a number from {RATE_MIN:g} to {RATE_MAX:g}")
    return int(value) if value.is_integer() else value
