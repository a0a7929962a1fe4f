"""Bodies: JSON in all the ways in which nobody writes it, and the same with mistakes.

Strategies of hypothesis. What they make is meant to be legal (`collections`), or close to it (`broken`); the judge
decides what it is.
"""

import json
import random

from hypothesis import strategies as st

SPACES = ("", "", "", " ", "\n", "\t", "\r\n", "  \t\n\r ")
NUMBERS = (
    "0",
    "-0",
    "-0.0",
    "0e0",
    "1E+2",
    "1e-0005",
    "1e400",
    "-1e-400",
    "1.0000000000000000000000000000001",
    "123456789012345678901234567890.10",
    "18446744073709551616",
    "-9223372036854775809",
)
_ESCAPES = (
    "\\u0041",
    "\\u0000",
    "\\/",
    '\\"',
    "\\\\",
    "\\b\\f\\n\\r\\t",
    "\\ud83d\\ude00",
    "\\uD83D\\uDE00",
    "\\ud83d",
    "\\ude00",
    "\\uDEAD\\uD83D",
    "\\\\ud83d",
    "\\ud55c",
    "\\u9000",
    "\\uffff",
    "\\u2028",
)
_PLAIN = (
    "",
    "a",
    "data",
    '\\"data\\":[',
    "é",
    "€",
    "😀",
    "\u2028",
    "\ufeff",
    "\x7f",
    "]}",
    "{[",
    ",",
    ":",
    "ud83d",
    "null",
)
_KEYS = ("a", "a", "data", "version", "d\\u0061ta", "", "\\ud83d", "é", "__proto__")

_numbers = (
    st.sampled_from(NUMBERS)
    | st.integers().map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.integers(1, 5_000).map(lambda digits: "7" * digits)
    | st.integers(1, 400).map(lambda digits: f"-0.{'3' * digits}E-{digits}")
)
_text_pieces = st.sampled_from(_ESCAPES + _PLAIN) | st.text(
    st.characters(codec="utf-8", exclude_characters='"\\', min_codepoint=0x20), max_size=8
)
_texts = st.lists(_text_pieces, max_size=6).map(lambda pieces: '"' + "".join(pieces) + '"')
_spaces = st.sampled_from(SPACES)
_keys = st.sampled_from(_KEYS).map(lambda key: f'"{key}"') | _texts


def _array(items: list[str], space: str) -> str:
    return "[" + space + f"{space},{space}".join(items) + space + "]"


def _object(pairs: list[tuple[str, str]], space: str) -> str:
    return "{" + space + f"{space},{space}".join(f"{key}{space}:{space}{value}" for key, value in pairs) + space + "}"


_scalars = st.sampled_from(("null", "true", "false", "[]", "{}", '""')) | _numbers | _texts
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.builds(_array, st.lists(inner, max_size=4), _spaces)
        | st.builds(_object, st.lists(st.tuples(_keys, inner), max_size=4), _spaces)
    ),
    max_leaves=8,
)
# A level of the envelope, one of `data` and these: from what must be taken to what may be refused.
_deep = st.tuples(st.sampled_from((10, 300, 498, 499, 900, 990, 1_100)), st.booleans()).map(
    lambda shape: '{"a":' * shape[0] + "1" + "}" * shape[0] if shape[1] else "[" * shape[0] + "]" * shape[0]
)
_large = st.sampled_from(
    ('"' + "x" * 200_000 + '"', "9" * 300_000, '"' + "\\ud83d" * 20_000 + '"', '"' + "é" * 150_000 + '"')
)
payloads = st.integers(0, 99).flatmap(
    lambda chance: _scalars if chance < 40 else _values if chance < 94 else _deep if chance < 98 else _large
)

_versions = st.sampled_from(('"1"', '"2.0 ü"', '""', '"\\ud83d\\ude00"', '"\\u0000"', '"\\ud55c"')) | st.text(
    st.characters(codec="utf-8"), max_size=60
).map(json.dumps)
_unknown = st.tuples(
    st.sampled_from(('"x"', '"Data"', '"\\ud076ersion"', '"\\ud064ata"', '"\\ud83d"', '"data "', '""')), _values
)


@st.composite
def collections(draw: st.DrawFn) -> bytes:
    """A collection, its members in any order, its keys with escapes, unknown ones between them."""
    items = draw(st.lists(payloads, min_size=1, max_size=5))
    members = [
        (draw(st.sampled_from(('"version"', '"version"', '"\\u0076ersion"'))), draw(_versions)),
        (draw(st.sampled_from(('"data"', '"data"', '"d\\u0061ta"'))), _array(items, draw(_spaces))),
    ]
    if draw(st.booleans()):
        members.append((draw(st.sampled_from(('"token"', '"tok\\u0065n"'))), draw(_versions)))
    if draw(st.integers(0, 3)) == 0:
        members.append(draw(_unknown))
    text = draw(_spaces) + _object(draw(st.permutations(members)), draw(_spaces)) + draw(_spaces)
    return text.encode()


_INSERTIONS = (
    *(b'"', b"\\", b",", b":", b"[", b"]", b"{", b"}", b"0", b"-", b".", b"e", b" ", b"\0", b"\n", b"\x0b", b"\x0c"),
    *(b"\xff", b"\xc0\xaf", b"\xed\xa0\xbd", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xef\xbb\xbf", b"\xc2\xa0", b"\x85"),
    *(b"NaN", b"Infinity", b"-Infinity", b"nul", b"True", b"undefined", b"//x\n", b"/**/", b"'", b"+1", b"01", b"0x1"),
    *(b"\\ud83d", b"\\ud8", b"\\u", b"\\x41", b"\\ude00", b'"\\ud83d"', b"ud83d", b"\\ud83d\\u00", b"[" * 100_000),
    *(b'"version":"2",', b'"data":[1],', b',"data":[2]', b'"token":1,', b'"d\\u0061ta":[3],', b',"version":"\\ud83d"'),
)


def mutate(body: bytes, seed: int, count: int) -> bytes:
    """Seeded: what hypothesis would draw byte by byte costs it more than the request costs ingest."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    changed = bytearray(body)
    for _ in range(count):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(changed):
                changed[at] = chance.randrange(256)
            case 2:
                del changed[at : at + chance.choice((1, 1, 1, 2, 5, 40))]
            case 3:
                del changed[at:]
            case 4:
                end = at + chance.randrange(20)
                changed[at:at] = changed[at:end]
            case _:
                changed[at:at] = chance.choice(_INSERTIONS)
    return bytes(changed)


broken = st.builds(mutate, collections(), st.integers(0, 2**32), st.integers(1, 4)) | st.builds(
    mutate,
    st.just(b'{"version":"1","token":"t","data":[1,"\\ud83d",{"a":"x"}]}'),
    st.integers(0, 2**32),
    st.integers(1, 3),
)
"""Collections with one to four mistakes each, half of them small ones: few bytes, so that each matters."""
