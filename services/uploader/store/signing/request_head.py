"""The bytes of a PUT's head, signed. Pure: the time is an argument. Never sees a socket; the body only as its hash.

Everything that is the same for all objects is encoded, sorted and made canonical once, for each set of names of
metadata: a put fills two patterns, the canonical request and the head, with the same values in the same order.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from services.uploader.errors import ConfigurationError
from services.uploader.store.signing.signature import ALGORITHM, UNSIGNED, Signer

_META = "x-amz-meta-"
_PATTERNS_MAX = 64
"""Sets of metadata names whose patterns are kept. An uploader has one or two; more are made anew each time."""

_ENCODED_AS_ITSELF = re.compile(r"[A-Za-z0-9._~/=-]*")  # but for "=", which is one replacement
_PLAIN = re.compile(r"[!-~\0]*")  # visible ASCII: canonical as it is; \0 joins the values
_VALUE = re.compile(r"[ -~\t]*")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Not covered by botocore's signatures either: proxies may change it (SIGNED_HEADERS_BLACKLIST).
_UNSIGNED_NAMES = frozenset({"user-agent"})


@dataclass(frozen=True, slots=True)
class Template:
    """A put, without what differs from object to object.

    Attributes:
        host: to connect to.
        port: likewise.
        tls: whether it is https.
        host_header: as it is sent and signed.
        path: of the bucket; the key, encoded, follows it.
        headers: name and value of each constant one, the name in lower case.
        sum_header: carries the sum of a body; empty where none is sent.
        region: of the signature.
        signs_body: whether the signature covers the body's hash.

    """

    host: str
    port: int
    tls: bool
    host_header: str
    path: str
    headers: tuple[tuple[str, str], ...]
    sum_header: str
    region: str
    signs_body: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signs."""

    access_key: str
    secret: str
    token: str | None


@dataclass(frozen=True, slots=True)
class _Patterns:
    """For one set of metadata names; `order` says which of the values, as they come, stand where."""

    canonical: bytes
    head: bytes
    order: tuple[int, ...]


class RequestHead:
    """Makes the heads of one identity's puts."""

    def __init__(self, template: Template, identity: Identity) -> None:
        self._template = template
        self._signer = Signer(identity.secret, template.region)
        self._identity = identity
        self._path = template.path
        self._patterns: dict[tuple[str, ...], _Patterns] = {}
        self._signs_body = template.signs_body
        self._sums = bool(template.sum_header)

    def of(self, key: str, body: bytes, sent: str, metadata: Mapping[str, str], now_s: float) -> bytes:
        """The head of one put, from its request line to the empty line.

        Args:
            key: of the object, any text.
            body: its bytes.
            sent: their sum in the form of S3; empty where the template has none.
            metadata: ASCII names and values.
            now_s: seconds since 1970.

        Raises:
            ConfigurationError: a name or value of metadata cannot be sent.

        """
        names = tuple(metadata)
        patterns = self._patterns.get(names) or self._patterns_of(names)
        signer = self._signer
        signer.at(now_s)
        raw, canonical = _values(tuple(metadata.values()), patterns.order)
        path = self.path_of(key)
        hashed = hashlib.sha256(body).hexdigest().encode() if self._signs_body else UNSIGNED
        fixed = (path, sent.encode(), hashed, signer.time) if self._sums else (path, hashed, signer.time)
        signature = signer.sign(patterns.canonical % (*fixed, *canonical, hashed))
        return patterns.head % (*fixed, *raw, signer.scope, signature.encode(), len(body))

    def path_of(self, key: str) -> bytes:
        """The path of an object, encoded once, as S3 wants it signed and sent."""
        if _ENCODED_AS_ITSELF.fullmatch(key):
            return (self._path + key.replace("=", "%3D")).encode()
        return (self._path + quote(key, safe="-._~/")).encode()

    def _patterns_of(self, names: tuple[str, ...]) -> _Patterns:
        lower = [name.lower() for name in names]
        if len(set(lower)) < len(lower) or not all(_NAME.fullmatch(name) for name in names):
            raise ConfigurationError("invalid_parameter", f"metadata cannot have the names {', '.join(names)!r}")
        order = tuple(sorted(range(len(names)), key=lower.__getitem__))
        variable = [*([self._template.sum_header] if self._sums else ()), "x-amz-content-sha256", "x-amz-date"]
        variable += [_META + lower[index] for index in order]
        made = _Patterns(self._canonical(variable), self._head(variable), order)
        if len(self._patterns) < _PATTERNS_MAX:
            self._patterns[names] = made
        return made

    def _constants(self) -> dict[str, str]:
        """Constant headers by name, but for the host's."""
        token = self._identity.token
        return {**dict(self._template.headers), **({"x-amz-security-token": token} if token else {})}

    def _canonical(self, variable: list[str]) -> bytes:
        """The canonical request, `%b` for the path, each variable header in the order of names, and the body's hash.

        The variable ones come in that order: the sum's (either name), x-amz-content-sha256, x-amz-date, x-amz-meta-*.
        """
        headers = {name: " ".join(value.split()) for name, value in self._constants().items()}
        lines = {name: _escaped(value) for name, value in headers.items() if name not in _UNSIGNED_NAMES}
        lines["host"] = _escaped(self._template.host_header)
        lines |= dict.fromkeys(variable, "%b")
        names = sorted(lines)
        block = "".join(f"{_escaped(name)}:{lines[name]}\n" for name in names)
        return f"PUT\n%b\n\n{block}\n{_escaped(';'.join(names))}\n%b".encode()

    def _head(self, variable: list[str]) -> bytes:
        constants = self._constants()
        signed = sorted([*(name for name in constants if name not in _UNSIGNED_NAMES), "host", *variable])
        return (
            "PUT %b HTTP/1.1\r\n"
            f"Host: {_escaped(self._template.host_header)}\r\n"
            + "".join(f"{_escaped(name)}: {_escaped(value)}\r\n" for name, value in constants.items())
            + "".join(f"{_escaped(name)}: %b\r\n" for name in variable)
            + f"Authorization: {ALGORITHM} Credential={_escaped(self._identity.access_key)}/%b, "
            f"SignedHeaders={_escaped(';'.join(signed))}, Signature=%b\r\n"
            "Content-Length: %d\r\n\r\n"
        ).encode()


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _values(values: tuple[str, ...], order: tuple[int, ...]) -> tuple[list[bytes], list[bytes]]:
    """Metadata in the order of the names: as it is sent, and as it is signed (the same, but for white space)."""
    joined = "\0".join(values)
    if _PLAIN.fullmatch(joined):
        pieces = joined.encode().split(b"\0")
        if len(pieces) == len(values):
            raw = [pieces[index] for index in order]
            return raw, raw
    for value in values:
        if not _VALUE.fullmatch(value):
            raise ConfigurationError("invalid_parameter", f"metadata cannot have the value {value[:100]!r}")
    in_order = [values[index] for index in order]
    return [value.encode() for value in in_order], [" ".join(value.split()).encode() for value in in_order]
