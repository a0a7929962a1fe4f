"""The slicer: payload bytes stay the client's own, and whatever is no collection is refused with its place."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.collection import InvalidCollectionError, parse

ITEMS_MAX = 100


def body_of(*payloads: bytes, version: bytes = b'"1"') -> bytes:
    return b'{"version":' + version + b',"token":"t","data":[' + b",".join(payloads) + b"]}"


@pytest.mark.parametrize(
    "payload",
    [
        b'{"n":1e400}',
        b'{"n":123456789012345678901234567890.10}',
        b'{"a":1,"a":2}',
        b"[ 1 ,\t2 ]",
        '"é\\u2028"'.encode(),
        '"\u2028"'.encode(),
        b"null",
        b"-0.0",
        b'""',
        b"{}",
        b"[]",
        b'"\\/\\u0041\\n"',
        b'{"a" :\n{"b":[true,false]}}',
        b"9" * 5000,
        b'"' + b"x" * 100_000 + b'"',
        b'"]}\\",\\"data\\":[1]"',
        b"[" * 300 + b"]" * 300,
    ],
)
def test_payload_bytes_stay_as_sent(payload: bytes) -> None:
    """Every payload comes out byte for byte, whatever a parser would have made of it."""
    assert parse(body_of(b"1", payload, b"2"), ITEMS_MAX).payloads == [b"1", payload, b"2"]


@pytest.mark.parametrize(
    "payload",
    [
        b'"abc\\ud83d"',  # the high half of an emoji that JavaScript's slice() cut in two
        b'"\\ude00abc"',
        b'"\\uD83D\\ud83d\\ude00"',  # one lone, one pair
        b'"\\ude00\\ud83d"',  # a pair the wrong way round is two lone ones
        b'"\\\\ud83d \\ud83d"',  # an escaped backslash, then a lone one
        b'{"\\ud83d":"~^`|@#%&;!?$"}',
        b'["\\ud83d",1e400,"\\u0000"]',
    ],
)
def test_lone_surrogate_escapes_are_kept(payload: bytes) -> None:
    """JSON's grammar allows a lone surrogate escape: it does not cost a client the whole collection."""
    found = parse(body_of(b'"\\ud83d\\ude00"', payload, b"1e400"), ITEMS_MAX)
    assert found.payloads == [b'"\\ud83d\\ude00"', payload, b"1e400"]


def test_space_around_a_payload_is_not_part_of_it() -> None:
    """Fidelity excepts the white space around a payload."""
    assert parse(b'{"version":"1","data":[\n 1 ,\t{ "a" : 1 }\r\n]}', ITEMS_MAX).payloads == [b"1", b'{ "a" : 1 }']


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        (b"", "invalid_json", "truncated"),
        (b'{"version":"1","data":[1]', "invalid_json", "truncated"),
        (b'{"version":"1","data":[1]} x', "invalid_json", "trailing"),
        (b'{"version":"1","data":[NaN]}', "invalid_json", "byte 23"),
        (b'{"version":"1","data":[Infinity]}', "invalid_json", "byte 23"),
        (b'{"version":"1","data":[-Infinity]}', "invalid_json", "byte 24"),
        (b'{"version":"1","data":[01]}', "invalid_json", "byte 24"),
        (b'{"version":"1","data":[1,]}', "invalid_json", "byte 25"),
        (b'{"version":"1","data":["a\nb"]}', "invalid_json", "byte 25"),
        (b'{"version":"1","data":["\\x"]}', "invalid_json", "byte 25"),
        (b"{'version':'1','data':[1]}", "invalid_json", "byte 1"),
        (b'\xef\xbb\xbf{"version":"1","data":[1]}', "invalid_json", "byte 0"),
        (b'{"version":"1","data":["\xff"]}', "not_utf8", "byte 24"),
        (b'{"version":"1","data":["\xed\xa0\xbd"]}', "not_utf8", "byte 24"),  # a surrogate, encoded
        (b'{"version":"1","data":["\xc0\xaf"]}', "not_utf8", "byte 24"),  # an overlong slash
        (b'{"version":"1","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json", "nested"),
        (b'{"version":"1","data":' + b"[" * 1_000_000, "invalid_json", "nested"),
        (b'{"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "invalid_json", "nested"),
        (b'{"version":"\\ud83d","data":[1]}', "invalid_envelope", "version"),
        (b'["version"]', "invalid_envelope", "object"),
        (b'{"version":1,"data":[1]}', "invalid_envelope", "$.version"),
        (b'{"version":"1","token":1,"data":[1]}', "invalid_envelope", "$.token"),
        (b'{"data":[1]}', "invalid_envelope", "`version`"),
        (b'{"version":"1"}', "invalid_envelope", "`data`"),
        (b'{"version":"1","data":{}}', "invalid_envelope", "array"),
        (b'{"version":"' + b"v" * 257 + b'","data":[1]}', "invalid_envelope", "256"),
        (b'{"version":"1","data":[]}', "empty_data", "empty"),
        (body_of(*[b"1"] * (ITEMS_MAX + 1)), "too_many_items", "100"),
        (body_of(b"1")[:-1] + b',"x":"' + b"x" * 65536 + b'"}', "invalid_envelope", "65536 bytes beside"),
    ],
)
def test_what_is_no_collection_is_refused_with_its_place(body: bytes, code: str, place: str) -> None:
    """A refusal has a stable code and a detail that says where."""
    with pytest.raises(InvalidCollectionError) as refusal:
        parse(body, ITEMS_MAX)
    assert refusal.value.code == code
    assert place in refusal.value.detail


@pytest.mark.parametrize(
    "body",
    [
        b'{"version":"1","version":"2","data":[1]}',  # as many quotes as with a token
        b'{"version":"1","data":[1],"data":[1]}',
        b'{"version":"1","data":["x"],"data":[1]}',
        b'{"version":"1","data":[1],"data":["data"]}',
        b'{"version":"1","token":"a","token":"b","data":[1]}',
        b'{"version":"1","x":1,"x":12,"data":[1]}',  # the first is a prefix of the last
        b'{"version":"1","x":12,"x":1,"data":[1]}',
        b'{"version":"1","x":{"y":1},"x":{"y":1},"data":[1]}',
        b'{"vers\\u0069on":"1","version":"1","data":[1]}',
        b'{"version":"1","data":["\\ud83d"],"data":[1]}',
    ],
)
def test_a_key_that_stands_twice_is_refused(body: bytes) -> None:
    """Of two equal envelope keys none is taken silently, however they are written."""
    with pytest.raises(InvalidCollectionError) as refusal:
        parse(body, ITEMS_MAX)
    assert refusal.value.code == "duplicate_key"


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":{"data":[1]},"version":"1","data":[1]}',
        b'{"version":"[1]","note":"\\"data\\":[1]","data":[1]}',
        b'{"data":[1],"x":[{"data":[1]}],"y":1.5e3,"z":null,"version":"1"}',
        b' { "x" : 1 , "version" : "1" , "data" : [ 1 ] } ',
        b'{"\\u0076ersion":"1","data":[1]}',
    ],
)
def test_unknown_keys_are_ignored(body: bytes) -> None:
    """The envelope may grow: unknown keys do no harm, also where they look like known ones."""
    assert parse(body, ITEMS_MAX).payloads == [b"1"]


def test_payloads_do_not_keep_the_body_alive() -> None:
    """A small payload that waits for Kafka does not hold its megabytes of body in memory."""
    payload = parse(body_of(b"1", b'"' + b"x" * 1000 + b'"'), ITEMS_MAX).payloads[0]
    assert type(payload) is bytes


def test_the_token_stays_out_of_a_repr() -> None:
    """A collection that ends up in a log line or a trace shows no token."""
    assert "secret" not in repr(parse(b'{"version":"1","token":"secret","data":[1]}', ITEMS_MAX))


_json = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    values=st.lists(_json, min_size=1, max_size=5),
    indent=st.none() | st.integers(0, 3),
    ascii_only=st.booleans(),
    version=st.text(st.characters(codec="utf-8"), max_size=40),
)
def test_any_json_round_trips(values: list[object], indent: int | None, *, ascii_only: bool, version: str) -> None:
    """Any JSON values, however written, come out byte for byte, and the version as text."""
    texts = [json.dumps(value, indent=indent, ensure_ascii=ascii_only) for value in values]
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    body = body_of(*encoded, version=json.dumps(version).encode())
    try:
        body.decode()
    except UnicodeDecodeError:
        with pytest.raises(InvalidCollectionError, match="not UTF-8"):
            parse(body, ITEMS_MAX)
        return
    found = parse(body, ITEMS_MAX)
    assert (found.version, found.payloads) == (version, encoded)


@given(st.binary(max_size=60) | st.text('{}[]",:\\ud83deE0123456789.-+ truefalsn', max_size=60).map(str.encode))
def test_no_payload_bytes_crash(payload: bytes) -> None:
    """Bytes in a payload's place are refused, or are what the standard library calls JSON, and kept."""
    try:
        found = parse(body_of(payload), ITEMS_MAX)
    except InvalidCollectionError:
        return
    assert len(json.loads(body_of(payload))["data"]) == len(found.payloads)
    if len(found.payloads) == 1:
        assert found.payloads == [payload.strip(b" \t\r\n")]


@given(st.binary(max_size=80))
def test_no_body_crashes(body: bytes) -> None:
    """Whatever is sent, it is a collection or a refusal of ours."""
    with contextlib.suppress(InvalidCollectionError):
        assert parse(body, ITEMS_MAX).payloads
