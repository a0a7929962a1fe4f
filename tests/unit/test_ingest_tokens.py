"""The tokens file as a value: what it takes, what it refuses and how it says so, and that it tells no secret."""

import hashlib
import json
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.tokens import TOKEN_PREFIX, InvalidTokensError, Token, Tokens, hash_of, is_token_name

SECRET = TOKEN_PREFIX + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
HASH = hashlib.sha256(SECRET.encode()).hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()


def file_of(*entries: object) -> bytes:
    return json.dumps(entries).encode()


def entry(**fields: object) -> dict[str, object]:
    return {"name": "ci", "sha256": HASH, **fields}


def test_a_secret_finds_its_entry_with_all_its_fields() -> None:
    """By the SHA-256 of the secret, in either case of its digits; absent fields mean no folder, no limit, enabled."""
    tokens = Tokens.parse(
        file_of(
            entry(folder="a/b", disabled=True, requests_per_s=5, bytes_per_s=1e6),
            {"name": "B.2_x-y", "sha256": OTHER.upper()},
        )
    )
    assert len(tokens) == 2
    assert tokens.names == {"ci", "B.2_x-y"}
    assert tokens.find(SECRET.encode()) == Token("ci", bytes.fromhex(HASH), "a/b", True, 5.0, 1e6)
    assert tokens.find(b"another") == Token("B.2_x-y", bytes.fromhex(OTHER), None, False, None, None)


def test_only_the_secret_itself_is_a_token() -> None:
    """What stands in the file opens nothing: neither the hash, nor its digits, nor a part of the secret."""
    tokens = Tokens.parse(file_of(entry()))
    for guess in (b"", bytes.fromhex(HASH), HASH.encode(), SECRET.encode()[:-1], SECRET.encode() + b" ", b"\xff\x00"):
        assert tokens.find(guess) is None


def test_an_empty_list_lets_nobody_in() -> None:
    """It is valid: every client is locked out, on purpose."""
    tokens = Tokens.parse(b" [ ]\n")
    assert len(tokens) == 0
    assert tokens.find(SECRET.encode()) is None


def test_a_byte_order_mark_is_no_error() -> None:
    """Some editors put one in front."""
    assert len(Tokens.parse(b"\xef\xbb\xbf" + file_of(entry()))) == 1


def test_one_name_may_have_two_tokens() -> None:
    """For rotation: both find the same client; the old one may be disabled by itself."""
    tokens = Tokens.parse(
        file_of(entry(sha256=OTHER, folder="f", bytes_per_s=9, disabled=True), entry(folder="f", bytes_per_s=9))
    )
    old, new = tokens.find(b"another"), tokens.find(SECRET.encode())
    assert old is not None
    assert new is not None
    assert (old.name, old.disabled) == ("ci", True)
    assert (new.name, new.disabled) == ("ci", False)
    assert tokens.names == {"ci"}


@pytest.mark.parametrize(("field", "value"), [("folder", "g"), ("requests_per_s", 2), ("bytes_per_s", 3)], ids=str)
def test_the_tokens_of_one_name_agree(field: str, value: object) -> None:
    """Else one client's quota or folder would follow from the token it happens to use; the message names both."""
    with pytest.raises(InvalidTokensError) as error:
        Tokens.parse(file_of({"name": "x", "sha256": "0" * 64}, entry(sha256=OTHER), entry(**{field: value})))
    assert str(error.value) == f"entry [2], name ci: {field} differs from entry [1] of the same name"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON: Expecting value at line 1, column 1"),
        (b'[{"name": "a"', "not JSON: Expecting ',' delimiter at line 1, column 14"),
        (b"[]]", "not JSON: Extra data at line 1, column 3"),
        (b"[\xff]", "not UTF-8 at byte 1"),
        (b"[" * 100_000, "not a tokens file: RecursionError"),
        (b"[" + b"1" * 5000 + b"]", "not a tokens file: ValueError"),
        (b"{}", "must be a JSON list of entries"),
        (b"null", "must be a JSON list of entries"),
        (file_of(entry(), 7), "entry [1]: must be a JSON object"),
        (file_of({"name": "a"}), "entry [0], name a: sha256 is missing"),
        (file_of({"sha256": HASH}), "entry [0]: name is missing"),
        (file_of(entry(name=7)), "entry [0]: name: should be a valid string"),
        (file_of(entry(name="")), "entry [0]: name: must be 1 to 64 of A-Z a-z 0-9 . _ -, and no token or hash"),
        (file_of(entry(name="a" * 65)), "entry [0]: name: must be 1 to 64"),
        (file_of(entry(name="ci\n")), "entry [0]: name: must be 1 to 64"),
        (file_of(entry(name="zoë")), "entry [0]: name: must be 1 to 64"),
        (file_of(entry(name=SECRET)), "entry [0]: name: must be 1 to 64"),
        (file_of(entry(name=HASH)), "entry [0]: name: must be 1 to 64"),
        (file_of(entry(sha256=SECRET)), "entry [0], name ci: sha256: holds a token; only its hash may stand here"),
        (file_of(entry(sha256=HASH[:-1])), "entry [0], name ci: sha256: must be 64 hex digits"),
        (file_of(entry(sha256=HASH + "\n")), "entry [0], name ci: sha256: must be 64 hex digits"),
        (file_of(entry(sha256=None)), "entry [0], name ci: sha256: should be a valid string"),
        (file_of(entry(folder="../etc")), "entry [0], name ci: folder: must be `/`-parted names"),
        (file_of(entry(folder=f"a/{SECRET}")), "entry [0], name ci: folder: holds a token or a hash"),
        (file_of(entry(folder=HASH)), "entry [0], name ci: folder: holds a token or a hash"),
        (file_of(entry(folder="")), "entry [0], name ci: folder: must be `/`-parted names"),
        (file_of(entry(disabled="no")), "entry [0], name ci: disabled: should be a valid boolean"),
        (file_of(entry(disabled=1)), "entry [0], name ci: disabled: should be a valid boolean"),
        (file_of(entry(requests_per_s=0)), "requests_per_s: should be greater than or equal to 0.001"),
        (file_of(entry(requests_per_s=-1)), "requests_per_s: should be greater than or equal to 0.001"),
        (file_of(entry(bytes_per_s="9")), "bytes_per_s: should be a valid number"),
        (file_of(entry(bytes_per_s=True)), "bytes_per_s: should be a valid number"),
        (file_of(entry(bytes_per_s=float("nan"))), "bytes_per_s: should be a finite number"),
        (file_of(entry(bytes_per_s=float("inf"))), "bytes_per_s: should be a finite number"),
        (file_of(entry(bytes_per_s=1e13)), "bytes_per_s: should be less than or equal to 1000000000000"),
        (file_of(entry(requests_per_sec=5)), "entry [0], name ci: requests_per_sec is no field of an entry (name,"),
        (file_of(entry(**{SECRET: 1})), "a field (its name may be a secret and is not shown) is no field of an entry"),
        (
            file_of(entry(), entry(name="b", sha256=HASH.upper())),
            f"entry [1], name b: sha256 {HASH[:8]}… stands in entry [0], name ci, too",
        ),
        (b'[{"name": "a", "disabled": true, "disabled": false}]', "entry [0]: disabled stands twice"),
        (b'[{"name": {"a": 1, "a": 2}}]', "entry [0]: name: should be a valid string"),
    ],
)
def test_a_bad_file_is_refused_with_entry_and_field(text: bytes, message: str) -> None:
    """Strict types, no unknown field, no key twice; the message says where, counted from 0 as `jq` does."""
    with pytest.raises(InvalidTokensError) as error:
        Tokens.parse(text)
    assert message in str(error.value)


FIELDS = st.sampled_from(["name", "sha256", "folder", "disabled", "requests_per_s", "bytes_per_s", SECRET, HASH, "x"])
VALUES = st.sampled_from([SECRET, HASH, HASH.upper(), [SECRET], {SECRET: HASH}, "ci", "a/b", None, True, 0, 5, -1.5])
ENTRIES = st.dictionaries(FIELDS, VALUES)


@given(st.lists(st.one_of(ENTRIES, ENTRIES.map(lambda fields: entry(**fields)), VALUES), max_size=4))
def test_no_error_shows_a_token_or_a_hash(entries: list[object]) -> None:
    """Wherever an operator puts a secret by mistake: at most the first 8 digits of a hash, and nothing of a token."""
    try:
        tokens = Tokens.parse(file_of(*entries))
    except InvalidTokensError as error:
        shown = "".join(traceback.format_exception(error))  # with the errors behind it, as a log would show them
    else:
        shown = repr([tokens, *tokens.names, tokens.find(SECRET.encode())])
    assert SECRET[:12] not in shown
    assert HASH[:9] not in shown.lower()


@given(st.one_of(st.binary(), st.text().map(str.encode), st.recursive(st.none(), st.lists).map(file_of)))
def test_whatever_the_file_holds_is_answered(text: bytes) -> None:
    """Any bytes are a tokens file or an InvalidTokensError; a reload survives all of them."""
    try:
        said = f"{len(Tokens.parse(text))} entries"
    except InvalidTokensError as error:
        said = str(error)
    assert said


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True).filter(is_token_name), st.binary()))
def test_every_secret_finds_its_own_name(secrets: dict[str, bytes]) -> None:
    """Any number of entries, any bytes as a secret; where two names had one secret, the file is refused."""
    text = file_of(*({"name": name, "sha256": hash_of(secret).hex()} for name, secret in secrets.items()))
    if len(set(secrets.values())) < len(secrets):
        with pytest.raises(InvalidTokensError, match="stands in entry"):
            Tokens.parse(text)
        return
    tokens = Tokens.parse(text)
    found = {name: tokens.find(secret) for name, secret in secrets.items()}
    assert {name: token and token.name for name, token in found.items()} == {name: name for name in secrets}


def test_the_file_that_the_docs_show_is_one() -> None:
    """The example of docs/operations/tokens.md, as it stands there."""
    page = (Path(__file__).parents[2] / "docs/operations/tokens.md").read_text("utf-8")
    example = page.split("```json\n", 1)[1].split("```", 1)[0]
    assert Tokens.parse(example.encode()).names == {"acme", "beta"}
