"""Every refusal of a body names a place: the byte, the field or the item, as exactly as anybody can."""

import pytest

from services.ingest.collection import InvalidCollectionError, parse

ITEMS_MAX = 100


def collection(data: bytes) -> bytes:
    """A body with this as the value of `data`, which begins at byte 22."""
    return b'{"version":"1","data":' + data + b"}"


def refusal_of(body: bytes) -> tuple[str, str]:
    with pytest.raises(InvalidCollectionError) as refusal:
        parse(body, ITEMS_MAX)
    return refusal.value.code, refusal.value.detail


def short(value: object) -> str | None:
    """A test's name, where the value is megabytes."""
    return repr(value[:40]) if isinstance(value, bytes) else None


WHOLE = collection(b"[1]")  # 26 bytes


@pytest.mark.parametrize(
    ("body", "byte"),
    [
        # where it ends too early: its length
        (b"", 0),
        (b" \n", 2),
        (b'{"version":', 11),
        (WHOLE[:-1], 25),
        (collection(b'["a'), 26),
        (collection(b'["\\ud83d'), 31),
        # what follows it
        (WHOLE + b"x", 26 + 1),  # msgspec counts the byte that it has read
        (WHOLE + b"\0", 26 + 1),
        (WHOLE + WHOLE, 26 + 1),
        # numbers that are none
        (collection(b"[NaN]"), 23),
        (collection(b"[1,Infinity]"), 25),
        (collection(b"[-Infinity]"), 24),
        (collection(b"[.5]"), 23),
        (collection(b"[1.]"), 25),
        (collection(b"[+1]"), 23),
        (collection(b"[0x1]"), 24),
        (collection(b"[01]"), 24),
        # punctuation
        (collection(b"[1,]"), 25),
        (collection(b"[,1]"), 23),
        (collection(b"[1 2]"), 25),
        (collection(b"[{a:1}]"), 24),
        (collection(b"['a']"), 23),
        (collection(b"[\0]"), 23),
        # inside strings
        (collection(b'["a\0b"]'), 25),
        (collection(b'["a\nb"]'), 25),
        (collection(b'["\\x"]'), 25),
        (collection(b'["\\u12"]'), 29),
        (collection(b'["\\ud8"]'), 29),  # of the digits of a surrogate
        (collection(b'["\\ud83d\\x"]'), 31),
        (collection(b'["\\ud83d",NaN]'), 32),  # behind a surrogate that is no mistake
        (collection(b'["\\ud83d\\u12"]'), 35),
        # other encodings
        (b"\xef\xbb\xbf" + WHOLE, 0),
        (WHOLE.decode().encode("utf-16-le"), 1),
        (WHOLE.decode().encode("utf-32-be"), 0),
        (b"\0" * 10, 0),
    ],
    ids=short,
)
def test_what_is_not_json_names_its_byte(body: bytes, byte: int) -> None:
    """The byte where JSON ends to be JSON."""
    code, detail = refusal_of(body)
    assert code == "invalid_json"
    assert detail.endswith(f"(byte {byte})")


@pytest.mark.parametrize(
    ("body", "byte"),
    [
        (collection(b'["\xff"]'), 24),
        (collection(b'["\xed\xa0\xbd"]'), 24),  # a surrogate, encoded
        (collection(b'["\xc0\xaf"]'), 24),  # an overlong slash
        (collection(b'["\xf4\x90\x80\x80"]'), 24),  # beyond Unicode
        (collection('["é€😀'.encode() + b'\xf0\x9f"]'), 24 + 2 + 3 + 4),
        (b"\xe2\x82", 0),  # half a character
        (WHOLE.decode().encode("utf-16"), 0),
        # behind the pieces in which a large body is looked at
        (collection(b'["' + b"x" * 1_000_000 + b'\xff"]'), 24 + 1_000_000),
        (collection(b'["' + "é".encode() * 500_001 + b'\xc3"]'), 24 + 1_000_002),
        (collection(b'["' + "x€".encode() * 500_000 + b'\xe2\x82"]'), 24 + 2_000_000),
    ],
    ids=short,
)
def test_what_is_not_utf8_names_its_byte(body: bytes, byte: int) -> None:
    """The byte where UTF-8 ends to be UTF-8, however far behind."""
    code, detail = refusal_of(body)
    assert code == "not_utf8"
    assert detail.endswith(f"(byte {byte})")


@pytest.mark.parametrize("character", ["é", "€", "😀"])
@pytest.mark.parametrize("shift", range(4))
def test_a_large_body_of_utf8_is_taken_wherever_its_characters_are_cut(character: str, shift: int) -> None:
    """A body is looked at in pieces, and a character that lies over the end of one is whole all the same."""
    payload = b'"' + b"x" * shift + character.encode() * 300_000 + b'"'
    assert parse(collection(b"[" + payload + b"]"), ITEMS_MAX).payloads == [payload]


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        (b"null", "invalid_envelope", "(byte 0)"),
        (b'\n "x"', "invalid_envelope", "(byte 2)"),
        (b"9" * 400, "invalid_envelope", "(byte 0)"),
        (b"[]", "invalid_envelope", "(byte 0)"),
        (b"{}", "invalid_envelope", "`version`"),
        (b'{"data":["\\ud83d"]}', "invalid_envelope", "`version`"),
        (b'{"version":"1"}', "invalid_envelope", "`data`"),
        (b'{"version":null,"data":[1]}', "invalid_envelope", "`$.version`"),
        (b'{"version":%s,"data":[1]}' % (b"9" * 5000), "invalid_envelope", "`$.version`"),
        (b'{"version":1,"data":["\\ud83d"]}', "invalid_envelope", "`$.version`"),
        (b'{"version":"1","token":null,"data":[1]}', "invalid_envelope", "`$.token`"),
        (b'{"version":"%s","data":[1]}' % ("é".encode() * 129), "invalid_envelope", "`version`"),
        (b'{"version":"\\ud83d","data":[1]}', "invalid_envelope", "`version` holds a lone surrogate"),
        (b'{"version":"1","token":"\\ude00","data":["\\ud83d"]}', "invalid_envelope", "(byte 23)"),
        (collection(b"null"), "invalid_envelope", "`data`"),
        (collection(b'"[1]"'), "invalid_envelope", "`data`"),
        (collection(b'"\\ud83d"'), "invalid_envelope", "`data`"),
        (collection(b"[ ]"), "empty_data", "`data`"),
        (collection(b"[" + b"1," * ITEMS_MAX + b"1]"), "too_many_items", "`data[100]`"),
        (collection(b'["\\ud83d"' + b",1" * ITEMS_MAX + b"]"), "too_many_items", "`data[100]`"),
        (
            b'{"version":"1","version":"2","data":[1]}',
            "duplicate_key",
            "'version' stands twice in the envelope (byte 15)",
        ),
        (collection(b'[1],"d\\u0061ta":[1]'), "duplicate_key", "'data' stands twice in the envelope (byte 26)"),
        (b'{"version":"1","d\\u0061ta":[1],"data":[2]}', "duplicate_key", "'data' stands twice"),
        (collection(b'[1], "x\\ud83d" :1,"x\\uD83D":1'), "duplicate_key", "(byte 40)"),
    ],
    ids=short,
)
def test_what_is_not_a_collection_names_the_field(body: bytes, code: str, place: str) -> None:
    """The field, or for the whole body the byte where it begins; of two equal keys the one that is too many."""
    found, detail = refusal_of(body)
    assert found == code
    assert place in detail


@pytest.mark.parametrize(
    ("before", "opening", "levels"),
    [
        (b"", b"[", 100_000),
        (b"", b"[", 1_000_000),
        (b'"\\ud83d",', b"[", 100_000),
        (b"{}," * 20_000, b"[", 5_000),
        (b'"' + b"[" * 70_000 + b'",', b"[", 5_000),  # brackets of a text are no levels
        (b"", b'{"a":', 100_000),
        (b"[[1]]," * 40_000, b"[", 5_000),
    ],
)
@pytest.mark.parametrize("is_closed", [True, False])
def test_nesting_bombs_name_where_they_go_off(before: bytes, opening: bytes, levels: int, *, is_closed: bool) -> None:
    """However deep, a refusal and no crash, which names the byte of the level that is one too many."""
    closing = (b"1" + (b"]" if opening == b"[" else b"}") * levels + b"]") if is_closed else b""
    body = b'{"version":"1","data":[' + before + opening * levels + closing + b"}"
    code, detail = refusal_of(body)
    assert code == "invalid_json"
    assert detail.startswith("nested too deeply (byte ")
    start = 23 + len(before)
    byte = int(detail.removesuffix(")").rsplit(" ", 1)[1])
    assert start + 400 * len(opening) < byte < start + levels * len(opening)
    assert body[byte : byte + 1] in b"[{"


def test_the_search_for_a_place_is_bounded() -> None:
    """At the end of a body of 16 MiB the place is a range, found without parsing it dozens of times again."""
    before = b'"' + b"x" * (16 * 1024 * 1024 - 10_000) + b'",'
    code, detail = refusal_of(collection(b"[" + before + b"[" * 5000))
    assert code == "invalid_json"
    assert detail.startswith("nested too deeply (between byte ")
    low, high = (int(word) for word in detail.removesuffix(")").split() if word.isdigit())
    assert low < 23 + len(before) + 990 < high
