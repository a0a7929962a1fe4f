"""The file that `verify --missing-to` writes and `replay --from-file` reads: one JSON object a line, a record each."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self


class InvalidFileError(ValueError):
    """The file cannot be read, or a line names no record; the message names the place."""


@dataclass(frozen=True, slots=True)
class OffsetFile:
    """Records by partition and offset.

    Attributes:
        topic: which they are of; None: the file does not say.
        topic_id: its id when the file was written; None: as above.
        offsets: by partition.
        sum: the SHA-256 of the file, by which a job knows it again.

    """

    topic: str | None
    topic_id: str | None
    offsets: Mapping[int, frozenset[int]]
    sum: str


def read_offsets(path: Path) -> OffsetFile:
    """The records that the file names.

    Raises:
        InvalidFileError: see there.

    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidFileError(f"{path}: {error.strerror or error}") from None
    found: dict[int, set[int]] = defaultdict(set)
    topics: set[str] = set()
    topic_ids: set[str] = set()
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            partition, offset = entry["partition"], entry["offset"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InvalidFileError(f'{path}, line {number}: not of the form {{"partition": 0, "offset": 1}}') from None
        if not (type(partition) is int and type(offset) is int and partition >= 0 and offset >= 0):
            raise InvalidFileError(f"{path}, line {number}: partition and offset are numbers from 0")
        found[partition].add(offset)
        topics.update([entry["topic"]] if isinstance(entry.get("topic"), str) else [])
        topic_ids.update([entry["topic_id"]] if isinstance(entry.get("topic_id"), str) else [])
    if len(topics) > 1 or len(topic_ids) > 1:
        raise InvalidFileError(f"{path} names records of several topics: {', '.join(sorted(topics | topic_ids))}")
    return OffsetFile(
        topics.pop() if topics else None,
        topic_ids.pop() if topic_ids else None,
        {partition: frozenset(offsets) for partition, offsets in found.items()},
        hashlib.sha256(content).hexdigest(),
    )


class UnwritableFileError(Exception):
    """The file cannot be written; the message names it."""


class OffsetWriter:
    """Writes such a file, line by line beside its place; it appears there whole, at `keep`, or not at all.

    A context manager. With no path it takes everything and writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Begin.

        Raises:
            UnwritableFileError: its directory takes no file, or what is at its place is none: /dev/stdout, say.

        """
        if self._path is not None:
            try:
                if self._path.exists() and not self._path.is_file():
                    raise UnwritableFileError(f"{self._path}: not a regular file")
                self._path = Path(os.path.realpath(self._path))  # a link stays one
                self._file = tempfile.NamedTemporaryFile(
                    "w", dir=self._path.parent, prefix=f".{self._path.name}.", delete=False
                )
            except OSError as error:
                raise UnwritableFileError(f"{self._path}: {error.strerror or error}") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Remove what was not kept."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what the disk had no room for is written once more at the close
                self._file.close()
            with contextlib.suppress(OSError):
                Path(self._file.name).unlink(missing_ok=True)

    def write(self, entry: Mapping[str, object]) -> None:
        """One line.

        Raises:
            UnwritableFileError: the disk is full, say.

        """
        if self._file is not None:
            try:
                self._file.write(json.dumps(entry) + "\n")
            except OSError as error:
                raise UnwritableFileError(f"{self._path}: {error.strerror or error}") from None

    def keep(self) -> None:
        """Let it appear.

        Raises:
            UnwritableFileError: it did not.

        """
        if self._file is None or self._path is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            Path(self._file.name).chmod(0o666 & ~umask)  # as any new file; a temporary one is its owner's alone
            Path(self._file.name).replace(self._path)
        except OSError as error:
            raise UnwritableFileError(f"{self._path}: {error.strerror or error}") from None
