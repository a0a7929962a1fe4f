r"""From a request's body to its payloads, each one byte for byte what the client sent. Pure.

Owns the envelope `{"version": str, "token": str, "data": [payload, ...]}` and nothing of HTTP or Kafka. The rule that
all of this serves: never decode a payload and encode it again. msgspec finds where each payload begins and ends, and
its traps are handled here (DESIGN §2 *Fidelity*):

- it does not check UTF-8 inside what it skips: the whole body is checked first;
- of two equal envelope keys it silently takes the last: the quotes outside `data` are counted, and where that count
  leaves room for doubt the keys are walked;
- it refuses `"\ud83d"`, a lone surrogate escape, which JSON's grammar allows: such escapes are masked, and
  unmasked in the slices;
- it answers deep nesting with RecursionError;
- its slices keep the whole body alive: they are copied.
"""

import functools
import re
from dataclasses import dataclass, field
from itertools import permutations

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
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)

ENVELOPE_BYTES_MAX = 64 * 1024
"""Most bytes of a body beside the value of `data`: the token, the version, unknown keys and white space."""

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\n\r"
_QUOTES_WITHOUT_TOKEN = 6  # "version" "…" "data": three strings, and no room for a fourth
_QUOTES_WITH_TOKEN = 10  # and "token" "…"
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BETWEEN = re.compile(rb"[ \t\n\r]*")
_MASKS = [bytes(pair) for pair in permutations(b"~^`|@#%&;!?$", 2)]  # two unlike bytes that are no hex digits


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
        return _parse(body, items_max)
    except RecursionError:
        raise InvalidCollectionError("invalid_json", "nested too deeply") from None
    except msgspec.DecodeError as error:
        masked = _mask_lone_surrogates(body)
        if masked is None:
            raise _explained(error) from None
    return _parse_masked(*masked, items_max)


def _parse(body: bytes, items_max: int) -> Collection:
    envelope = _envelope.decode(body)
    data = bytes(envelope.data)
    if len(body) - len(data) > ENVELOPE_BYTES_MAX:  # before anything is built of its keys
        raise InvalidCollectionError("invalid_envelope", f"more than {ENVELOPE_BYTES_MAX} bytes beside `data`")
    quotes = body.count(b'"') - data.count(b'"')
    expected = _QUOTES_WITHOUT_TOKEN if envelope.token is msgspec.UNSET else _QUOTES_WITH_TOKEN
    if quotes != expected or body.count(b"\\") != data.count(b"\\"):
        _refuse_duplicate_keys(body)
    if data.count(b",") >= items_max:  # fewer commas than that cannot be too many payloads
        _refuse_too_many(data, items_max)
    payloads = [bytes(item) for item in _items.decode(data)]
    if not payloads:
        raise InvalidCollectionError("empty_data", "`data` is empty: a collection has at least one payload")
    if len(envelope.version) * 4 > VERSION_BYTES_MAX and len(envelope.version.encode()) > VERSION_BYTES_MAX:
        raise InvalidCollectionError("invalid_envelope", f"`version` is longer than {VERSION_BYTES_MAX} bytes")
    return Collection(envelope.version, None if envelope.token is msgspec.UNSET else envelope.token, payloads)


def _refuse_too_many(data: bytes, items_max: int) -> None:
    """Count without building: eight million items of one byte would be a gigabyte of objects before their number is
    known. A struct that takes an array of at most so many fields stops at the first one more.
    """
    try:
        _at_most(items_max).decode(data)
    except msgspec.ValidationError:
        message = f"`data` has more than the {items_max} payloads that are taken at once"
        raise InvalidCollectionError("too_many_items", message) from None


@functools.lru_cache(maxsize=4)
def _at_most(items_max: int) -> msgspec.json.Decoder[msgspec.Struct]:
    fields = [(f"i{index}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for index in range(items_max)]
    array = msgspec.defstruct("AtMost", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(array)


def _check_utf8(body: bytes) -> None:
    if body.startswith(_BOM):
        raise InvalidCollectionError("invalid_json", "starts with a byte order mark, which JSON forbids (byte 0)")
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidCollectionError("not_utf8", f"not UTF-8: {error.reason} (byte {error.start})") from None


def _explained(error: msgspec.DecodeError) -> InvalidCollectionError:
    """Its own message names the byte or the field."""
    if isinstance(error, msgspec.ValidationError):
        return InvalidCollectionError("invalid_envelope", str(error))
    return InvalidCollectionError("invalid_json", str(error))


def _refuse_duplicate_keys(body: bytes) -> None:
    """Walk the envelope's keys by the values that msgspec kept, the last of each key.

    A JSON value says itself where it ends (a number by what follows it), so a key whose kept value does not stand
    behind it is an earlier twin. Builds no object of the body's size, whatever the unknown keys hold.
    """
    members = _members.decode(body)
    seen: set[str] = set()
    at = _skip(body, body.index(b"{") + 1)
    while at < len(body) and body[at : at + 1] != b"}":
        key_match = _STRING.match(body, at)
        if key_match is None:
            raise InvalidCollectionError("invalid_json", f"expected a key (byte {at})")
        key = _text.decode(key_match[0])
        value_at = _skip(body, _skip(body, key_match.end()) + 1)
        value = bytes(members[key])
        end = _skip(body, value_at + len(value))
        if key in seen or not body.startswith(value, value_at) or body[end : end + 1] not in (b",", b"}"):
            raise InvalidCollectionError("duplicate_key", f"key {key[:64]!r} stands twice in the envelope (byte {at})")
        seen.add(key)
        at = _skip(body, end + 1) if body[end : end + 1] == b"," else end


def _skip(body: bytes, at: int) -> int:
    match = _BETWEEN.match(body, at)
    return match.end() if match else at


def _mask_lone_surrogates(body: bytes) -> tuple[bytes, bytes] | None:
    r"""The body with each lone `\udXXX` written as mask + `dXXX`, of the same length, and the mask.

    None where there is no such escape, or no mask that the body does not contain.
    """
    lone = _lone_surrogates(body)
    mask = next((pair for pair in _MASKS if pair not in body), None)
    if not lone or mask is None:
        return None
    masked = bytearray(body)
    for at in lone:
        masked[at : at + 2] = mask
    return bytes(masked), mask


def _lone_surrogates(body: bytes) -> list[int]:
    lone: list[int] = []
    high_at, high_end = -1, -1  # the last high surrogate that still waits for its low one
    for match in _ESCAPE.finditer(body):
        unit = int(match[1], 16) if match[1] else 0
        is_low = 0xDC00 <= unit <= 0xDFFF  # noqa: PLR2004 - Unicode's low surrogates
        if is_low and high_end == match.start():
            high_at, high_end = -1, -1
            continue
        if high_at >= 0:
            lone.append(high_at)
            high_at, high_end = -1, -1
        if is_low:
            lone.append(match.start())
        elif 0xD800 <= unit <= 0xDBFF:  # noqa: PLR2004 - and its high ones
            high_at, high_end = match.span()
    if high_at >= 0:
        lone.append(high_at)
    return lone


def _parse_masked(masked: bytes, mask: bytes, items_max: int) -> Collection:
    try:
        collection = _parse(masked, items_max)
    except RecursionError:
        raise InvalidCollectionError("invalid_json", "nested too deeply") from None
    except msgspec.DecodeError as error:
        raise _explained(error) from None
    if mask.decode() in collection.version:
        raise InvalidCollectionError("invalid_envelope", "`version` holds a lone surrogate, which is not text")
    return Collection(
        collection.version,
        collection.token,
        [payload.replace(mask, b"\\u") for payload in collection.payloads],
    )
