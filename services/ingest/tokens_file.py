"""The tokens file on disk: read at the start, and again whenever it has changed.

Owns the tokens that are in force. A file that cannot be read or is not valid never replaces good ones: the last good
file stays in force, one log line and a metric say why, and the process stays ready, since it serves as well as before.
What the file must look like is the business of `tokens`.
"""

import asyncio
import errno
import hashlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from services.ingest.tokens import InvalidTokensError, Tokens
from shared.telemetry import IngestMetrics

log = logging.getLogger("spillway.ingest.tokens")

LOOK_EVERY_S = 1.0
FILE_BYTES_MAX = 16 * 1024 * 1024
"""Some 100,000 entries; a Kubernetes Secret holds 1 MiB."""


class _Stamp(NamedTuple):
    """What changes when a file is written, renamed over, or the link to it is moved."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int  # also changes with the owner and the rights


class _Found(NamedTuple):
    """One look at a file that may have changed: the tokens, or why there are none."""

    stamp: _Stamp | None
    digest: bytes = b""
    tokens: Tokens | None = None
    reason: str = ""
    was_read: bool = True  # else the trouble may end although the file does not change: it is tried again and again


class TokensFile:
    """The tokens of one file, as it was when it was last good.

    Args:
        path: may be a link; what it leads to is followed at every look.
        metrics: told of every change that was taken or refused.
        changed: called in the event loop with the new tokens, after each change that was taken.

    Raises:
        OSError: the file cannot be read.
        InvalidTokensError: it is no tokens file.

    """

    def __init__(
        self, path: Path, *, metrics: IngestMetrics, changed: Callable[[Tokens], None] = lambda _: None
    ) -> None:
        self._path = path
        self._metrics = metrics
        self._changed = changed
        stamp, text = _read(path)
        self._tokens = Tokens.parse(text)
        self._digest = hashlib.sha256(text).digest()  # of the text that is in force
        self._stamp: _Stamp | None = stamp  # of the file as last read, good or bad; None: there was none to read
        self._settled = False  # it was read twice with this stamp
        self._refused: tuple[_Stamp | None, str] | None = None  # what was last refused and why; None while all is well
        for outcome in ("taken", "refused"):
            metrics.tokens_reloads.labels(outcome=outcome)
        metrics.tokens_refused.set(0)

    @property
    def tokens(self) -> Tokens:
        """The tokens in force."""
        return self._tokens

    async def run(self, every_s: float = LOOK_EVERY_S) -> None:
        """Look every `every_s` seconds, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self) -> None:
        """Take the file if it has changed and is good."""
        found = await asyncio.to_thread(self._find)  # a large file, or a slow disk, must not hold up requests
        if found is None:
            return
        self._settled = found.stamp == self._stamp and found.was_read
        self._stamp = found.stamp
        if found.tokens is None:
            self._refuse(found)
        elif found.digest != self._digest or self._refused is not None:
            self._take(found.tokens, found.digest)

    def _find(self) -> _Found | None:
        """None where nothing has changed. Runs in a thread; changes nothing of this object.

        A file is read a second time although its stamp is the same: a write within the clock tick of the first reading
        leaves no trace in the stamp, and would be missed for ever.
        """
        stamp = None
        try:
            stamp = _stamp(self._path.stat())
            if stamp == self._stamp and self._settled:
                return None
            stamp, text = _read(self._path)
            return _Found(stamp, hashlib.sha256(text).digest(), Tokens.parse(text))
        except InvalidTokensError as error:
            return _Found(stamp, reason=str(error))
        except OSError as error:
            return _Found(stamp, reason=error.strerror or type(error).__name__, was_read=False)

    def _take(self, tokens: Tokens, digest: bytes) -> None:
        self._tokens, self._digest, self._refused = tokens, digest, None
        self._metrics.tokens_reloads.labels(outcome="taken").inc()
        self._metrics.tokens_refused.set(0)
        log.info(
            "the tokens file was taken",
            extra={"path": str(self._path), "entries": len(tokens), "clients": len(tokens.names)},
        )
        self._changed(tokens)

    def _refuse(self, found: _Found) -> None:
        told, self._refused = self._refused, (found.stamp, found.reason)
        if self._refused == told:
            return
        self._metrics.tokens_reloads.labels(outcome="refused").inc()
        self._metrics.tokens_refused.set(1)
        log.error(
            "the tokens file was not taken; the last good one stays in force",
            extra={"path": str(self._path), "reason": found.reason, "entries": len(self._tokens)},
        )


def _stamp(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read(path: Path) -> tuple[_Stamp, bytes]:
    """The file's stamp and text.

    Raises:
        OSError: it cannot be read, is no regular file, or is over FILE_BYTES_MAX.
        InvalidTokensError: it was written to meanwhile.

    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would block
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            text = file.read(FILE_BYTES_MAX + 1)
        if len(text) > FILE_BYTES_MAX:
            raise OSError(errno.EFBIG, f"over {FILE_BYTES_MAX} bytes", str(path))
        if _stamp(os.fstat(descriptor)) != _stamp(before):
            raise InvalidTokensError("it was written to while it was read")
        return _stamp(before), text
    finally:
        os.close(descriptor)
