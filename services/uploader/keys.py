"""The S3 key of a record: a template over the record alone (DESIGN §4), so that a redelivery, a replay and a client's
retry all write to the same key. Pure.

Only `A-Z a-z 0-9 . _ - = /` ever reach a key. Ids and folders are safe as `shared.record` decodes them, topics as Kafka
names them; in a version, which is any text, every other character becomes `_`.
"""

import functools
import hashlib
import re
import string
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from shared.record import Record

DEFAULT_TEMPLATE = "{folder}/shard={shard}/dt={date}/hour={hour}/{id}"

KEY_BYTES_MAX = 1024
"""S3's own limit of a key (Amazon S3 User Guide, "Naming Amazon S3 objects")."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._=-]")
_LITERAL = re.compile(r"[A-Za-z0-9._=/-]*")


def shard(record_id: str) -> str:
    """One hex digit of the id's SHA-256: it stands before the date and spreads a day over 16 prefixes."""
    return hashlib.sha256(record_id.encode("utf-8")).hexdigest()[0]


def _no_climbing(segment: str) -> str:
    """Dots alone would be a way up for whoever maps keys to folders."""
    return segment.replace(".", "_") if segment.strip(".") == "" else segment


@functools.lru_cache(maxsize=256)
def _date_and_hour(unix_hours: int) -> tuple[str, str]:
    """As text, in UTC. Cached: nearly all records of a second share it."""
    when = datetime.fromtimestamp(unix_hours * 3600, UTC)
    return when.strftime("%Y-%m-%d"), when.strftime("%H")


_FIELDS: Mapping[str, Callable[[Record], str]] = {
    "date": lambda record: _date_and_hour(record.key_hours)[0],
    "hour": lambda record: _date_and_hour(record.key_hours)[1],
    "shard": lambda record: shard(record.id),
    "id": lambda record: record.id,
    "received_ns": lambda record: str(record.received_ns),
    "topic": lambda record: record.topic,
    "partition": lambda record: str(record.partition),
    "offset": lambda record: str(record.offset),
    "version": lambda record: _no_climbing(_UNSAFE.sub("_", record.version or "")) or "none",
}
FIELDS = ("folder", *_FIELDS)

_STEM_FIELDS = {None, "folder", "shard", "date", "hour"}
"""What many records share: 16 shards of an hour of a folder. A template of these and then the id, as the default is,
costs a record one look into a cache."""


class KeyTemplate:
    """A checked key template. `key()` is a pure function of the record."""

    def __init__(self, template: str, default_folder: str) -> None:
        """Check the template.

        Args:
            template: text with `{field}` in it; the fields are FIELDS.
            default_folder: `{folder}` of a record that carries none.

        Raises:
            ValueError: what is wrong with the template.

        """
        self.template = template
        self._default_folder = default_folder
        self._parts: list[tuple[str, str | None]] = []  # literal, then the field that follows it
        try:
            parsed = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"{error} in key template {template!r}") from None
        for literal, field, spec, conversion in parsed:
            if field is not None and (field not in FIELDS or spec or conversion):
                raise ValueError(f"unknown field {{{field}}}; the fields are {', '.join(FIELDS)}")
            if not _LITERAL.fullmatch(literal):
                raise ValueError(f"unsafe character in {literal!r}; safe are A-Z a-z 0-9 . _ = - /")
            self._parts.append((literal, field))
        if "id" not in [field for _, field in self._parts]:
            raise ValueError("{id} is missing: without it two payloads could share a key, or one have two")
        last = self._parts[-1]
        self._id_last = last[1] == "id" and {field for _, field in self._parts[:-1]} <= _STEM_FIELDS
        self._stem = functools.lru_cache(maxsize=1024)(self._render_stem)  # of this template only
        if template.startswith("/") or "//" in template or template.endswith("/"):
            raise ValueError("a key must not start or end with / or contain //")

    def key(self, record: Record) -> str:
        """The record's S3 key, at most KEY_BYTES_MAX bytes: an id or version that would make it longer is hashed."""
        if self._id_last:
            key = self._stem(record.folder, shard(record.id), record.key_hours) + record.id
        else:
            key = self._render(record, {})
        if len(key) > KEY_BYTES_MAX:
            key = self._render(record, {"version": _digest(record.version or ""), "id": _digest(record.id)})
        return key

    def _render_stem(self, folder: str | None, digit: str, hours: int) -> str:
        """All that stands before the id, where `_id_last`."""
        date, hour = _date_and_hour(hours)
        values = {
            None: "",
            "folder": folder or self._default_folder,
            "shard": digit,
            "date": date,
            "hour": hour,
            "id": "",
        }
        return "".join(literal + values[field] for literal, field in self._parts)

    def _render(self, record: Record, instead: Mapping[str, str]) -> str:
        out = []
        for literal, field in self._parts:
            out.append(literal)
            if field == "folder":
                out.append(record.folder or self._default_folder)
            elif field is not None:
                out.append(instead.get(field) or _FIELDS[field](record))
        return "".join(out)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
