"""How letters are written, for people and as JSON: a line of a list, and one letter whole. Pure.

What is in a letter comes from anybody: nothing of it reaches a terminal but printable characters.
"""

import base64
from collections.abc import Sequence

from services.uploader.dead_letter import Header
from services.uploader.jobs.bounds import iso
from services.uploader.jobs.letters.counts import one_line
from services.uploader.jobs.letters.letter import Broken, Letter
from services.uploader.jobs.letters.selection import BROKEN_MAX, Selection, Surveyed

SHOWN_BROKEN = 10
_COLUMNS = ("letter", "written", "original", "id", "reason", "in S3", "message")
_HEX_BYTES = 32


def when(ms: int) -> str:
    """A time in milliseconds since 1970; Kafka's -1 is none."""
    return "unknown" if ms < 0 else iso(ms)


def letter_document(letter: Letter, key: str) -> dict[str, object]:
    """All that a list says of a letter, as JSON."""
    record = letter.original
    return {
        "letter": str(letter.place),
        "partition": letter.place.partition,
        "offset": letter.place.offset,
        "written_ms": letter.written_ms,
        "original": {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp_ms": letter.original_ms,
        },
        "id": record.id,
        "folder": record.folder,
        "foreign": record.foreign,
        "key": key,
        "bytes": letter.size_bytes,
        "reason": letter.reason,
        "message": letter.message,
        "attempts": letter.attempts,
        "failures": letter.failures,
    }


def surveyed_document(surveyed: Surveyed) -> dict[str, object]:
    """The same, with what is in S3; null: it was not asked."""
    chosen = surveyed.chosen
    return {**letter_document(chosen.letter, chosen.key), "object": surveyed.finding}


def broken_document(broken: Broken) -> dict[str, object]:
    """A broken letter as JSON."""
    return {
        "letter": str(broken.place),
        "partition": broken.place.partition,
        "offset": broken.place.offset,
        "written_ms": broken.written_ms,
        "why": broken.why,
    }


def broken_lines(selection: Selection) -> list[str]:
    """The broken letters, for people; nothing where there are none."""
    if not selection.broken:
        return []
    lines = [f"broken, no original record can be told from them: {selection.broken}"]
    lines += [f"  {one.place}: {one_line(one.why)}" for one in selection.broken_first[:SHOWN_BROKEN]]
    if selection.broken > SHOWN_BROKEN:
        named = f"the first {BROKEN_MAX}" if selection.broken > BROKEN_MAX else "all"
        lines.append(f"  … (`--output json` names {named})")
    return lines


def table(rows: Sequence[Surveyed], width: int | None) -> list[str]:
    """The letters, one a line, the message last and cut to `width` characters; None: not cut."""
    asked = any(row.finding is not None for row in rows)
    cells = [_COLUMNS, *(_cells(row) for row in rows)]
    if not asked:
        cells = [(*line[:5], line[6]) for line in cells]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]) - 1)]
    lines = []
    for line in cells:
        padded = [cell.ljust(size) for cell, size in zip(line, widths, strict=False)]
        text = "  ".join([*padded, line[-1]]).rstrip()
        lines.append(text if width is None or len(text) <= width else f"{text[: width - 1]}…")
    return lines


def _cells(row: Surveyed) -> tuple[str, ...]:
    letter = row.chosen.letter
    record = letter.original
    return (
        str(letter.place),
        when(letter.written_ms),
        f"{record.topic} p{record.partition}:{record.offset}",
        record.id,
        letter.reason,
        row.finding or "",
        one_line(letter.message),
    )


def whole_document(letter: Letter, key: str, bytes_max: int) -> dict[str, object]:
    """One letter whole, as JSON: `value` where it is UTF-8, else `value_base64`."""
    text, cut = _text(letter.value, bytes_max)
    value: dict[str, object] = {"value": text}
    if text is None:
        value = {"value_base64": base64.b64encode(letter.value[:bytes_max]).decode()}
        cut = len(letter.value) > bytes_max
    return {
        **letter_document(letter, key),
        "headers": [_header_document(header) for header in letter.headers],
        **value,
        "value_cut": cut,
    }


def headers_document(headers: Sequence[Header]) -> list[dict[str, object]]:
    """Headers as JSON, in their order: `value` where it is UTF-8 or null, else `value_base64`."""
    return [_header_document(header) for header in headers]


def _header_document(header: Header) -> dict[str, object]:
    name, value = header
    if value is None:
        return {"name": name, "value": None}
    text, _ = _text(value, len(value))
    if text is None:
        return {"name": name, "value_base64": base64.b64encode(value).decode()}
    return {"name": name, "value": text}


def whole_lines(letter: Letter, key: str, bytes_max: int) -> list[str]:
    """One letter whole, for people."""
    record = letter.original
    counted = f"attempts: {letter.attempts}, times that it became a dead letter: {letter.failures}"
    foreign = " (not written by ingest: made of its place and time)" if record.foreign else ""
    return [
        f"letter    {letter.place}, written {when(letter.written_ms)}",
        f"original  {record.topic} p{record.partition}:{record.offset}, written {when(letter.original_ms)}",
        f"id        {record.id}{foreign}",
        f"key       {key}",
        f"reason    {letter.reason} ({counted})",
        f"message   {one_line(letter.message)}",
        *header_lines(letter.headers),
        *value_lines(letter.value, bytes_max),
    ]


def header_lines(headers: Sequence[Header]) -> list[str]:
    """Headers for people, in their order."""
    return [f"headers   {len(headers)}", *(f"  {one_line(name)}: {_shown(value)}" for name, value in headers)]


def value_lines(value: bytes | None, bytes_max: int) -> list[str]:
    """A value for people."""
    if value is None:
        return ["value     none"]
    text, cut = _text(value, bytes_max)
    if text is None:
        some = value[:_HEX_BYTES].hex(" ")
        more = " …" if len(value) > _HEX_BYTES else ""
        return [f"value     {len(value)} bytes, not UTF-8 (`--raw` writes them): {some}{more}"]
    shown = [one_line(line) for line in text.split("\n")]
    note = f", of which the first {len(text.encode())} follow (`--bytes`, `--raw`)" if cut else ""
    return [f"value     {len(value)} bytes{note}", *shown]


def _shown(value: bytes | None) -> str:
    if value is None:
        return "null"
    text, _ = _text(value, len(value))
    return repr(value) if text is None else one_line(text)


def _text(value: bytes, bytes_max: int) -> tuple[str | None, bool]:
    """The beginning as text, None where the whole is not UTF-8; and whether there is more."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return None, False
    return value[:bytes_max].decode(errors="ignore"), len(value) > bytes_max
