"""Who may send: the tokens file as a value (DESIGN §2 *Folder*). Pure: bytes in, tokens out; the caller reads the file.

Owns the form of the file, its errors, and the look-up of a secret. The file holds hashes and this module never keeps a
secret; an error names the entry and the field, and shows no more of a hash than its first 8 digits, of a token nothing.

One name is one client. It may have several entries, so that its token can be changed without a gap: the new one is
added, the client moves, the old one goes. Quotas and fairness count by name, so all entries of a name must agree in
folder and rates; only `disabled` is each entry's own.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shared.record import is_safe_folder

TOKEN_PREFIX = "spw_"  # noqa: S105 - how a secret scanner knows our tokens; no secret itself
RATE_MIN = 0.001
"""Smallest rate: below it a wait is longer than any process lives."""
RATE_MAX = 1e12

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"[0-9A-Fa-f]{64}")
_FIELD_SHOWN = re.compile(r"[a-z][a-z0-9_]{0,31}", re.IGNORECASE)
_AGREE = ("folder", "requests_per_s", "bytes_per_s")  # fields that all entries of one name share


class InvalidTokensError(ValueError):
    """The text is no tokens file. The message names the entry and the field, never a token or a whole hash."""


@dataclass(frozen=True, slots=True)
class Token:
    """One entry of the file. Rates are None where there is no limit, `folder` where S3_FOLDER holds."""

    name: str
    sha256: bytes = field(repr=False)  # 32 bytes
    folder: str | None = None
    disabled: bool = False
    requests_per_s: float | None = None
    bytes_per_s: float | None = None


class Tokens:
    """The tokens that are known, by the hash of their secret."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._by_hash = {token.sha256: token for token in tokens}
        self.names = frozenset(token.name for token in self._by_hash.values())

    @classmethod
    def parse(cls, text: bytes) -> "Tokens":
        """Read the file's text: a JSON list of entries. An empty list is valid and lets nobody in.

        Raises:
            InvalidTokensError: the text is not such a list; nothing of it is taken.

        """
        return cls(parse_entries(text))

    def find(self, secret: bytes) -> Token | None:
        """The entry of the secret, a disabled one too; None where nobody has it.

        The look-up is by a SHA-256 that a client cannot steer, so its time tells nothing about a neighbouring hash;
        the comparison that counts takes the same time wherever two hashes differ.
        """
        digest = hash_of(secret)
        token = self._by_hash.get(digest)
        if token is None or not hmac.compare_digest(token.sha256, digest):
            return None
        return token

    def __len__(self) -> int:
        return len(self._by_hash)


def hash_of(secret: bytes) -> bytes:
    """What the file holds for a secret: 32 bytes. A plain hash will do: our secrets are 256 random bits, not words."""
    return hashlib.sha256(secret).digest()


def is_token_name(name: str) -> bool:
    """Whether the text can name a token: 1 to 64 of `A-Z a-z 0-9 . _ -`, and neither a token nor a hash by mistake."""
    return _NAME.fullmatch(name) is not None and not _may_be_secret(name)


def parse_entries(text: bytes) -> list[Token]:
    """The entries in the file's order.

    Raises:
        InvalidTokensError: as `Tokens.parse`.

    """
    tokens: list[Token] = []
    at: dict[bytes, int] = {}  # index by hash
    first_of: dict[str, Token] = {}
    for index, item in enumerate(_load(text)):
        where = f"entry [{index}]{_shown_name(item)}"
        token = _token(item, where)
        if token.sha256 in at:
            earlier = at[token.sha256]
            other = f"entry [{earlier}], name {tokens[earlier].name}"
            raise InvalidTokensError(f"{where}: sha256 {token.sha256.hex()[:8]}… stands in {other}, too")
        first = first_of.setdefault(token.name, token)
        for name in _AGREE:
            if getattr(first, name) != getattr(token, name):
                raise InvalidTokensError(f"{where}: {name} differs from entry [{at[first.sha256]}] of the same name")
        at[token.sha256] = index
        tokens.append(token)
    return tokens


class _Entry(BaseModel):
    """The form of one entry."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str
    sha256: str
    folder: str | None = None
    disabled: bool = False
    requests_per_s: float | None = Field(default=None, ge=RATE_MIN, le=RATE_MAX, allow_inf_nan=False)
    bytes_per_s: float | None = Field(default=None, ge=RATE_MIN, le=RATE_MAX, allow_inf_nan=False)

    @field_validator("name")
    @classmethod
    def _named(cls, value: str) -> str:
        if not is_token_name(value):
            raise ValueError("must be 1 to 64 of A-Z a-z 0-9 . _ -, and no token or hash")
        return value

    @field_validator("sha256")
    @classmethod
    def _hash(cls, value: str) -> str:
        if value.startswith(TOKEN_PREFIX):
            raise ValueError("holds a token; only its hash may stand here (spillway-ingest token --hash makes it)")
        if _HASH.fullmatch(value) is None:
            raise ValueError("must be 64 hex digits")
        return value

    @field_validator("folder")
    @classmethod
    def _safe(cls, value: str | None) -> str | None:
        if value is not None and not is_safe_folder(value):
            raise ValueError("must be `/`-parted names of A-Z a-z 0-9 . _ = -, none of them `.` or `..`")
        if value is not None and _may_be_secret(value):  # it would stand in every key of S3
            raise ValueError("holds a token or a hash")
        return value


class _Twice:
    """An object with a key that stands twice: JSON takes the last one, and the operator may have meant the other."""

    def __init__(self, key: str) -> None:
        self.key = key


def _object(pairs: list[tuple[str, object]]) -> dict[str, object] | _Twice:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            return _Twice(key)
        found[key] = value
    return found


def _load(text: bytes) -> list[object]:
    try:
        # utf-8-sig: some editors put a byte order mark in front.
        loaded = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise InvalidTokensError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidTokensError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nested without end
        raise InvalidTokensError(f"not a tokens file: {type(error).__name__}") from None
    if not isinstance(loaded, list):
        raise InvalidTokensError("must be a JSON list of entries")
    return loaded


def _token(item: object, where: str) -> Token:
    if isinstance(item, _Twice):
        raise InvalidTokensError(f"{where}: {_shown_field(item.key)} stands twice")
    if not isinstance(item, dict):
        raise InvalidTokensError(f"{where}: must be a JSON object")
    try:
        entry = _Entry.model_validate(item)
    except ValidationError as error:
        raise InvalidTokensError(f"{where}: {_first(error)}") from None
    return Token(
        name=entry.name,
        sha256=bytes.fromhex(entry.sha256),
        folder=entry.folder,
        disabled=entry.disabled,
        requests_per_s=entry.requests_per_s,
        bytes_per_s=entry.bytes_per_s,
    )


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, for a person: the field and what it must be, never what it holds."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = _shown_field(str(first["loc"][0]))
    match first["type"]:
        case "missing":
            return f"{name} is missing"
        case "extra_forbidden":
            return f"{name} is no field of an entry ({', '.join(_Entry.model_fields)})"
    return f"{name}: {first['msg'].removeprefix('Value error, ').replace('Input should', 'should')}"


def _may_be_secret(text: str) -> bool:
    return TOKEN_PREFIX in text or _HASH.search(text) is not None


def _shown_name(item: object) -> str:
    """The entry's name where it is one; whatever else stands there may be a secret by mistake."""
    name = item.get("name") if isinstance(item, dict) else None
    return f", name {name}" if isinstance(name, str) and is_token_name(name) else ""


def _shown_field(key: str) -> str:
    shown = _FIELD_SHOWN.fullmatch(key) is not None and not _may_be_secret(key)
    return key if shown else "a field (its name may be a secret and is not shown)"
