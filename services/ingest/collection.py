r"""From a request's body to its payloads, each one byte for byte what the client sent. Pure.

Owns the envelope `{"version": str, "token": str, "data": [payload, ...]}` and nothing of HTTP or Kafka. The rule that
all of this serves: never decode a payload and encode it again. msgspec finds where each payload begins and ends, and
its traps are handled here (DESIGN §2 *Fidelity*):

- it does not check UTF-8 inside what it skips: the whole body is checked first;
- of two equal envelope keys it silently takes the last: the quotes outside `data` are counted, and where that count
  leaves room for doubt the keys are walked;
- it refuses `"\ud83d"`, a lone surrogate escape, which JSON's grammar allows: then it is shown a body of the same form
  without surrogates, and the payloads are cut out of the real one at the places it found;
- it answers deep nesting with RecursionError, and a body that ends too early without a place: both are found here;
- its slices keep the whole body alive: they are copied.

A hostile body is parsed on the event loop like any other, so every pass over a whole body is one of C's: no Python code
runs once for each byte, escape or bracket of `data`.
"""

import codecs
import functools
import json
import re
from dataclasses import dataclass, field

import msgspec

from shared.record import VERSION_BYTES_MAX


class InvalidCollectionError(Exception):
    """The client's fault. `detail` names the place for a person; `code` is stable.

    Attributes:
        code: `not_utf8`, `invalid_json`, `invalid_envelope`, `duplicate_key`, `empty_data` or `too_many_items`.
        detail: what is wrong and where.

    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Collection:
    """A body's content. `payloads` are copies: they outlive the body without keeping it in memory."""

    version: str
    token: str | None = field(repr=False)
    payloads: list[bytes]


class _Envelope(msgspec.Struct):
    version: str
    data: msgspec.Raw
    token: str | msgspec.UnsetType = msgspec.UNSET


_envelope = msgspec.json.Decoder(_Envelope)
_items = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)

ENVELOPE_BYTES_MAX = 64 * 1024
"""Most bytes of a body beside the value of `data`: the token, the version, unknown keys and white space."""

_BOM = b"\xef\xbb\xbf"
_QUOTES_WITHOUT_TOKEN = 6  # "version" "…" "data": three strings, and no room for a fourth
_QUOTES_WITH_TOKEN = 10  # and "token" "…"
_UTF8_PIECE_BYTES = 256 * 1024  # decoding to see whether it is UTF-8 takes four times the memory, for one piece
_COUNT_PIECE_BYTES = 64 * 1024
_DEPTH_FIRST_BYTES = 2048  # no nesting is too deep within fewer
_DEPTH_SEARCH_BYTES_MAX = 8 * 1024 * 1024  # parsed again to find a place: some 50 ms

_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR = re.compile(rb"[^,}\] \t\n\r]*")
_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|([\[{])|[\]}]', re.DOTALL)


def parse(body: bytes, items_max: int) -> Collection:
    """Slice a body into its payloads.

    Args:
        body: the whole request body.
        items_max: most payloads to take.

    Raises:
        InvalidCollectionError: the body is not a collection; says where.

    """
    if not body.isascii():
        _check_utf8(body)
    try:
        envelope = _envelope.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid_envelope(error, body) from None
    except msgspec.DecodeError as error:
        return _parse_with_surrogates(body, items_max, error)
    except RecursionError:
        raise _nested_too_deeply(body) from None
    data = bytes(envelope.data)
    _check_size(body, data)
    expected = _QUOTES_WITHOUT_TOKEN if envelope.token is msgspec.UNSET else _QUOTES_WITH_TOKEN
    if _marks_outside(body, data) != (expected, 0):
        _members(body, body, data)
    payloads = [bytes(item) for item in _items_of(data, items_max)]
    token = None if envelope.token is msgspec.UNSET else envelope.token
    return Collection(_checked_version(envelope.version), token, payloads)


def _marks_outside(body: bytes, data: bytes) -> tuple[int, int]:
    """How many quotes and backslashes a body has beside `data`, which most have last."""
    start = len(body) - len(data) - 1
    if body.startswith(data, start):
        return body.count(b'"', 0, start), body.count(b"\\", 0, start)
    return body.count(b'"') - data.count(b'"'), body.count(b"\\") - data.count(b"\\")


def _parse_with_surrogates(body: bytes, items_max: int, refusal: msgspec.DecodeError) -> Collection:
    r"""Parse what msgspec has refused, perhaps only for a lone surrogate escape.

    With `\u9` for every `\ud` the body has the same form and length, and what was wrong otherwise still is, at the same
    place. Where no backslash stands before it, or one that is itself escaped, that is plain text and does no harm, and
    searching without it is faster. No key can turn into one of ours, which have no `u9` and no Chinese letters.
    """
    form = body.replace(b"ud", b"u9").replace(b"uD", b"u9")
    if form == body:
        raise _invalid_json(refusal, body)
    try:
        envelope = _envelope.decode(form)
    except msgspec.ValidationError as error:
        raise _invalid_envelope(error, body) from None
    except msgspec.DecodeError as error:
        raise _invalid_json(error, body) from None
    except RecursionError:
        raise _nested_too_deeply(form) from None
    data = bytes(envelope.data)
    _check_size(form, data)
    places = _members(body, form, data)
    payloads = []
    at = places["data"].start + 1
    for item in _items_of(data, items_max):
        start = _skip_space(form, at)
        end = start + memoryview(item).nbytes
        payloads.append(body[start:end])
        at = _skip_space(form, end) + 1  # behind the comma
    version = _text_without_surrogates(body, "version", places["version"])
    token = _text_without_surrogates(body, "token", places["token"]) if "token" in places else None
    return Collection(_checked_version(version), token, payloads)


def _text_without_surrogates(body: bytes, key: str, place: slice) -> str:
    try:
        return _text.decode(body[place])
    except msgspec.DecodeError:
        message = f"`{key}` holds a lone surrogate, which is not text (byte {place.start})"
        raise InvalidCollectionError("invalid_envelope", message) from None


def _checked_version(version: str) -> str:
    if len(version) * 4 > VERSION_BYTES_MAX and len(version.encode()) > VERSION_BYTES_MAX:
        raise InvalidCollectionError("invalid_envelope", f"`version` is longer than {VERSION_BYTES_MAX} bytes")
    return version


def _check_size(body: bytes, data: bytes) -> None:
    """Bound the envelope before anything is built of its keys."""
    if len(body) - len(data) > ENVELOPE_BYTES_MAX:
        raise InvalidCollectionError("invalid_envelope", f"more than {ENVELOPE_BYTES_MAX} bytes beside `data`")
    if not data.startswith(b"["):
        raise InvalidCollectionError("invalid_envelope", "`data` is not an array")


def _items_of(data: bytes, items_max: int) -> list[msgspec.Raw]:
    items = _bounded_items(data, items_max) if _has_commas(data, items_max) else _items.decode(data)
    if not items:
        raise InvalidCollectionError("empty_data", "`data` is empty: a collection has at least one payload")
    return items


def _has_commas(data: bytes, number: int) -> bool:
    """Fewer commas than items are allowed cannot be too many items."""
    if len(data) <= number:
        return False
    if len(data) <= _COUNT_PIECE_BYTES:
        return data.count(b",") >= number
    found = 0
    for at in range(0, len(data), _COUNT_PIECE_BYTES):
        found += data.count(b",", at, at + _COUNT_PIECE_BYTES)
        if found >= number:
            return True
    return False


def _bounded_items(data: bytes, items_max: int) -> list[msgspec.Raw]:
    """Count without building: eight million items of one byte would be a gigabyte of objects before their number is
    known. A struct that takes an array of at most so many fields stops at the first one more.
    """
    try:
        items = msgspec.structs.astuple(_at_most(items_max).decode(data))
    except msgspec.ValidationError:
        message = f"`data` has more than the {items_max} payloads that are taken at once (`data[{items_max}]`)"
        raise InvalidCollectionError("too_many_items", message) from None
    return [item for item in items if item is not msgspec.UNSET]


@functools.lru_cache(maxsize=4)
def _at_most(items_max: int) -> msgspec.json.Decoder[msgspec.Struct]:
    fields = [(f"i{index}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for index in range(items_max)]
    array = msgspec.defstruct("AtMost", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(array)


def _check_utf8(body: bytes) -> None:
    if body.startswith(_BOM):
        raise InvalidCollectionError("invalid_json", "starts with a byte order mark, which JSON forbids (byte 0)")
    at = 0
    try:
        while at < len(body):
            end = at + _UTF8_PIECE_BYTES
            at += codecs.utf_8_decode(body[at:end], "strict", end >= len(body))[1]  # less than all inside a character
    except UnicodeDecodeError as error:
        place = at + error.start
        raise InvalidCollectionError("not_utf8", f"not UTF-8: {error.reason} (byte {place})") from None


def _invalid_envelope(error: msgspec.ValidationError, body: bytes) -> InvalidCollectionError:
    """Msgspec names the field, or the whole body by naming none."""
    message = str(error)
    place = "" if "`$" in message or "field" in message else f" (byte {_skip_space(body, 0)})"
    return InvalidCollectionError("invalid_envelope", message + place)


def _invalid_json(error: msgspec.DecodeError, body: bytes) -> InvalidCollectionError:
    """Msgspec names the byte, except where there is none."""
    message = str(error)
    place = "" if "(byte " in message else f" (byte {len(body)})"
    return InvalidCollectionError("invalid_json", message + place)


def _nested_too_deeply(body: bytes) -> InvalidCollectionError:
    """Where, as closely as a bounded number of parsed bytes tells: the shortest start of the body that is too deep."""
    low, high, parsed = 0, _DEPTH_FIRST_BYTES, 0
    view = memoryview(body)
    while high < len(body) and parsed < _DEPTH_SEARCH_BYTES_MAX and not _is_too_deep(view[:high]):
        low, high, parsed = high, high * 2, parsed + high
    high = len(body) if parsed >= _DEPTH_SEARCH_BYTES_MAX else min(high, len(body))
    while high - low > 1 and parsed < _DEPTH_SEARCH_BYTES_MAX:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_too_deep(view[:middle]) else (middle, high)
        parsed += middle
    place = f"byte {low}" if high - low == 1 else f"between byte {low} and byte {high}"
    return InvalidCollectionError("invalid_json", f"nested too deeply ({place})")


def _is_too_deep(body: memoryview) -> bool:
    try:
        _envelope.decode(body)
    except RecursionError:
        return True
    except msgspec.DecodeError:
        return False
    return False


def _members(body: bytes, form: bytes, data: bytes) -> dict[str, slice]:
    """Where the value of each key of the envelope stands, for a body that is known to be JSON.

    Args:
        body: as it was sent; its keys are read.
        form: the same or its double without surrogates; its values are walked over.
        data: of all values of the key `data` in `form`, the last.

    Raises:
        InvalidCollectionError: a key stands twice. A JSON array says itself where it ends, so a `data` whose value does
            not begin with `data` is an earlier twin.

    """
    places: dict[str, slice] = {}
    at = _skip_space(form, form.index(b"{") + 1)
    while form[at : at + 1] != b"}":
        key_end = _end_of_value(form, at)
        key: str = json.loads(body[at:key_end])  # takes a lone surrogate
        start = _skip_space(form, _skip_space(form, key_end) + 1)  # behind the colon
        if key in places or (key == "data" and not form.startswith(data, start)):
            raise InvalidCollectionError("duplicate_key", f"key {key[:64]!r} stands twice in the envelope (byte {at})")
        end = start + len(data) if key == "data" else _end_of_value(form, start)
        places[key] = slice(start, end)
        at = _skip_space(form, end)
        if form[at : at + 1] == b",":
            at = _skip_space(form, at + 1)
    return places


def _end_of_value(body: bytes, at: int) -> int:
    match body[at : at + 1]:
        case b'"':
            return _end(_STRING, body, at)
        case b"[" | b"{":
            depth = 0
            for token in _BRACKET.finditer(body, at):
                if token[1]:
                    depth += 1
                elif token[0] in (b"]", b"}"):
                    depth -= 1
                if depth == 0:
                    return token.end()
    return _end(_SCALAR, body, at)


def _skip_space(body: bytes, at: int) -> int:
    return _end(_SPACE, body, at)


def _end(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    match = pattern.match(body, at)
    return match.end() if match else at
