"""What `make run` says: a moving line and tables on a terminal, plain lines elsewhere. Decides nothing."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.table import Table

_WIDTH_OFF_TERMINAL = 200
_FIRST_BYTES = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One stored object as the table shows it."""

    key: str
    size_bytes: int
    first_bytes: bytes


class Screen:
    """Where the person who started us looks."""

    def __init__(self, stream: TextIO) -> None:
        width = None if stream.isatty() else _WIDTH_OFF_TERMINAL
        self._console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)

    def say(self, text: str = "") -> None:
        """One or more lines, never broken by us: addresses and commands are copied from them."""
        self._console.print(text, soft_wrap=True)

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Say that something is under way, and how long it took when it is done."""
        started_s = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(text):
                yield
        else:
            self.say(f"... {text}")
            yield
        self.say(f"ok  {text}, {time.monotonic() - started_s:.1f} s")

    def table(self, rows: Sequence[Row]) -> None:
        """Stored objects: key, size and first bytes."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("key", no_wrap=True)  # whole, or it could not be copied; a narrow terminal wraps it itself
        table.add_column("bytes", justify="right")
        table.add_column("first bytes", overflow="ellipsis", no_wrap=True)
        for row in rows:
            first = row.first_bytes[:_FIRST_BYTES].decode("utf-8", "replace")
            table.add_row(row.key, str(row.size_bytes), first if first.isprintable() else ascii(first))
        self._console.print(table, width=_WIDTH_OFF_TERMINAL, crop=False)
