"""How a look at the pipeline is shown: as text, or as a table for a terminal. Asks and decides nothing."""

import math
from collections.abc import Iterator

from rich.console import Group as Stacked
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from services.uploader.jobs.bounds import iso
from services.uploader.jobs.lag.look import PartitionLook
from services.uploader.jobs.lag.view import UNKNOWN, Drain, Pace, PipelineView, Standing, duration, named

COLUMNS = (
    "partition", "begin", "committed", "end", "lag", "oldest", "retention left", "committed/s", "arriving/s",
    "drained in",
)  # fmt: skip


def text(view: PipelineView) -> str:
    """Lines of plain text, without a width to fit in."""
    rows = [COLUMNS, *_rows(view)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([_head(view), "", *table, "", *_members(view), *(f"warning: {each}" for each in view.warnings)])


def table(view: PipelineView, trouble: str = "") -> RenderableType:
    """For a terminal. `trouble`: why this look is not the newest."""
    rows = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for name in COLUMNS:
        # 80 columns are enough for offsets of six digits; below that, no number is shown in two pieces.
        head = name.replace("partition", "no.").replace(" ", "\n").replace("/s", "\n/s")
        rows.add_column(head, justify="right", no_wrap=name != COLUMNS[-1])
    *partitions, total = _rows(view)
    for row, standing in zip(partitions, view.standings, strict=True):
        rows.add_row(*row, style="yellow" if standing.drain.pace is Pace.NEVER else "")
    rows.add_row(*total, style="bold")
    below = [Text(each) for each in _members(view)] + [Text(f"warning: {each}", "yellow") for each in view.warnings]
    if trouble:
        below.append(Text(f"not answered since: {trouble}", "red"))
    return Stacked(Text(_head(view)), Text(), rows, Text(), *below)


def _head(view: PipelineView) -> str:
    look = view.look
    kept = "for ever" if look.retention_ms is None else duration(look.retention_ms / 1000)
    by_size = ", or less by size" if look.by_size else ""
    count = len(look.partitions) + len(look.leaderless)
    state = "Dead (no such group)" if look.group.state == "Dead" else look.group.state
    size = len(look.group.members)
    return (
        f"{iso(look.at_ms)}  topic {look.topic}: {count} partitions, kept {kept}{by_size}; "
        f"group {look.group.group_id}: {state}, {size} member{'' if size == 1 else 's'}"
    )


def _members(view: PipelineView) -> Iterator[str]:
    for member in view.look.group.members:
        has = named(member.partitions) if member.partitions else "no partition"
        # A client calls itself what it likes: no escapes for the terminal, no lines of its own.
        name = "".join(letter if letter.isprintable() else " " for letter in f"{member.client_id} at {member.host}")
        yield f"member {name}: {has}"


def _rows(view: PipelineView) -> Iterator[tuple[str, ...]]:
    for each, standing in zip(view.look.partitions, view.standings, strict=True):
        yield (str(each.partition), str(each.begin), _committed(each), str(each.end), *_cells(standing))
    yield ("total", "", "", "", *_cells(view.total))


def _committed(look: PartitionLook) -> str:
    if look.committed is None:
        return "none"
    return str(look.committed) if look.gone_id is None else f"{look.committed} (topic gone)"


def _cells(standing: Standing) -> tuple[str, ...]:
    oldest = "-" if standing.lag_records == 0 else duration(standing.lag_s)
    return (
        str(standing.lag_records),
        oldest,
        "for ever" if standing.retention_left_s == math.inf else duration(standing.retention_left_s),
        _rate(standing.committed_per_s),
        _rate(standing.arriving_per_s),
        _drained(standing.drain),
    )


def _drained(drain: Drain) -> str:
    match drain.pace:
        case Pace.IN:
            return duration(drain.seconds)
        case Pace.DONE:
            return "-"
        case _:
            return drain.pace.value


def _rate(per_s: float | None) -> str:
    return UNKNOWN if per_s is None else f"{per_s:.1f}"
