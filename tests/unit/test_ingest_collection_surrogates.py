"""Lone surrogate escapes: legal JSON that msgspec refuses, parsed by its double without surrogates, kept as sent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.collection import InvalidCollectionError, parse

ITEMS_MAX = 100
LONE = b'"\\ud83d"'


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\uD55C\\uae00 \\ud55c"', "\ud55c\uae00 \ud55c"),  # Korean, whose escapes begin like surrogates
        (b'"ud83d \\\\ud83d uD"', "ud83d \\ud83d uD"),
        (b'"u9 \\u9000"', "u9 \u9000"),
    ],
)
@pytest.mark.parametrize("with_token", [True, False])
def test_texts_beside_a_lone_surrogate_are_the_clients(version: bytes, text: str, *, with_token: bool) -> None:
    """A lone surrogate in one payload changes neither the version nor the token nor another payload."""
    token = b'"token":' + version + b"," if with_token else b""
    payloads = [LONE, version, b'{"\\uD83D" : 1e400}', b'"\\\\ud83d"', b'"\\u9000"']
    found = parse(b'{"version":' + version + b"," + token + b'"data":[' + b" ,\t".join(payloads) + b"\n]}", ITEMS_MAX)
    assert (found.version, found.token) == (text, text if with_token else None)
    assert found.payloads == payloads


@pytest.mark.parametrize(
    "decoy",
    [
        b'"\\ud076ersion":2',  # a Korean letter whose escape ends like that of `v`
        b'"\\ud064ata":[2]',
        b'"\\u9076ersion":2',
        b'"\\ud074oken":null',
        b'"x":{"data":[2],"\\ud83d":["]","}"]}',
        b'"x":"\\"data\\":[\\ud83d]"',
        b'"\\ud83d":[[],{}]',
        b'"":-1.5E+3',
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_no_key_becomes_one_of_ours(decoy: bytes, *, is_first: bool) -> None:
    """Unknown keys are ignored, also those that look like ours once their surrogates are gone."""
    ours = b'"version":"1","token":"t","data":[' + LONE + b"]"
    found = parse(b"{" + b" , ".join([decoy, ours] if is_first else [ours, decoy]) + b"}", ITEMS_MAX)
    assert (found.version, found.token, found.payloads) == ("1", "t", [LONE])


@pytest.mark.parametrize(
    "keys",
    [
        (b'"\\ud83d"', b'"\\uD83D"'),
        (b'"\\ud83d\\ude00"', '"\U0001f600"'.encode()),
        (b'"\\ud55c"', '"\ud55c"'.encode()),
    ],
)
def test_a_key_is_the_same_however_its_surrogates_are_written(keys: tuple[bytes, bytes]) -> None:
    """Twins among the keys are found by their text, and those that only look alike are none."""
    with pytest.raises(InvalidCollectionError) as refusal:
        parse(b'{"version":"1",%s:1,%s:2,"data":[%s]}' % (*keys, LONE), ITEMS_MAX)
    assert refusal.value.code == "duplicate_key"
    assert parse(b'{"version":"1",%s:1,"\\u983d":2,"data":[%s]}' % (keys[0], LONE), ITEMS_MAX).payloads == [LONE]


def test_a_body_of_nothing_but_lone_surrogates() -> None:
    """Two hundred thousand of them, in items and in one, each kept."""
    payloads = [b'"' + b"\\ud83d" * 100_000 + b'"', *[b'"' + b"\\uDE00" * 1_000 + b'"'] * 99]
    assert parse(b'{"version":"1","data":[%s]}' % b",".join(payloads), ITEMS_MAX).payloads == payloads


_pieces = st.sampled_from(
    ["\\ud83d", "\\ude00", "\\uD83D\\uDE00", "\\ud55c", "\\u9000", "\\u0041", "\\\\", "\\\\ud83d", '\\"', "ud83d", "uD"]
)
_texts = st.lists(
    _pieces | st.text(st.characters(codec="utf-8", exclude_characters='"\\', min_codepoint=32)), max_size=5
)
_strings = _texts.map(lambda pieces: '"' + "".join(pieces) + '"')
_values = st.recursive(
    _strings | st.sampled_from(["1e400", "-0.0", "null", "[]"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + " , ".join(items) + "]")
        | st.lists(st.tuples(_strings, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=6,
)


@given(values=st.lists(_values, min_size=1, max_size=4), version=_strings, token=_strings, unknown=_strings)
def test_every_mixture_of_escapes_is_kept(values: list[str], version: str, token: str, unknown: str) -> None:
    """Whatever escapes stand where: payloads byte for byte, texts as the standard library reads them."""
    texts = [json.loads(version), json.loads(token)]
    body = f'{{{unknown}:[],"version":{version},"data":[{" ,".join(values)}],"token":{token}}}'.encode()
    has_lone = any("\ud800" <= character <= "\udfff" for text in texts for character in text)
    if has_lone or json.loads(unknown) in ("version", "data", "token"):
        with pytest.raises(InvalidCollectionError) as refusal:
            parse(body, ITEMS_MAX)
        assert refusal.value.code in ("invalid_envelope", "duplicate_key")
        return
    if len(texts[0].encode()) > 256:
        return
    found = parse(body, ITEMS_MAX)
    assert [found.version, found.token] == texts
    assert found.payloads == [value.encode() for value in values]
