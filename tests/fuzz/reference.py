"""What a body must be answered, by the standard library alone: the judge of the fuzz tests.

Shares nothing with the code that it judges. Walks the envelope with `json`'s own scanner, so that the bytes of every
payload are known without writing any of them anew.
"""

import json
import re
import sys
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

VERSION_BYTES_MAX = 256
ENVELOPE_BYTES_MAX = 64 * 1024
LEVELS_ALWAYS_TAKEN = 500
"""Levels of nesting, the envelope's counted, up to which nobody may refuse a body for its depth."""

_SPACE = re.compile(r"[ \t\n\r]*")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_OUR_FRAMES = 2_000  # more levels than any test makes on purpose, short of the bombs


class Verdict(Enum):
    """What the answer must be."""

    ACCEPT = "200 with the bytes as sent"
    REFUSE = "400"
    EITHER = "200 with the bytes as sent, or 400 for the depth"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, why, and what a 200 stands for."""

    verdict: Verdict
    reason: str = ""
    version: str = ""
    payloads: tuple[bytes, ...] = ()


NOT_THE_CODING = Judgement(Verdict.REFUSE, "not what its content coding says")


class _Refusal(Exception):  # noqa: N818 - no error: one of two possible verdicts
    pass


def _no_constant(name: str) -> NoReturn:
    raise _Refusal(f"{name} is not JSON")


# Numbers stay text: the standard library refuses integers of more than 4,300 digits, which JSON does not.
_scan = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant).raw_decode


def judge(body: bytes, items_max: int) -> Judgement:
    """Say what the answer must be."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + _OUR_FRAMES)
    try:
        text = body.decode()  # strict: no surrogates, nothing overlong; a BOM stays and is no JSON
        version, payloads = _envelope(text, items_max)
        encoded = tuple(payload.encode() for payload in payloads)
    except RecursionError:
        return Judgement(Verdict.REFUSE, "a nesting bomb")
    except (UnicodeDecodeError, json.JSONDecodeError, _Refusal) as error:
        return Judgement(Verdict.REFUSE, str(error))
    finally:
        sys.setrecursionlimit(limit)
    verdict = Verdict.ACCEPT if _levels(text) <= LEVELS_ALWAYS_TAKEN else Verdict.EITHER
    return Judgement(verdict, "", version, encoded)


def _envelope(text: str, items_max: int) -> tuple[str, list[str]]:
    """The version and the text of each payload, for a body that is a collection."""
    values, end = _members(text)
    if text[end:].strip(" \t\n\r"):
        raise _Refusal(f"something follows the object (character {end})")
    for key, required in (("version", True), ("token", False)):
        if key not in values and not required:
            continue
        _check_text(key, values.get(key, ""))
    version: str = json.loads(values["version"])
    if len(version.encode()) > VERSION_BYTES_MAX:
        raise _Refusal("a long version")
    if "data" not in values or not values["data"].startswith("["):
        raise _Refusal("no `data`, or no array")
    if len(text.encode()) - len(values["data"].encode()) > ENVELOPE_BYTES_MAX:
        raise _Refusal("a large envelope")
    payloads = _elements(values["data"])
    if not 1 <= len(payloads) <= items_max:
        raise _Refusal(f"{len(payloads)} payloads")
    return version, payloads


def _check_text(key: str, value: str) -> None:
    if not value.startswith('"'):
        raise _Refusal(f"`{key}` is absent or no text")
    if any("\ud800" <= character <= "\udfff" for character in json.loads(value)):
        raise _Refusal(f"a lone surrogate in `{key}`")


def _members(text: str) -> tuple[dict[str, str], int]:
    """The text of each value of the object that the text begins with, by key, and where the object ends."""
    values: dict[str, str] = {}
    at = _expect(text, _space(text, 0), "{")
    at = _space(text, at)
    if text[at : at + 1] == "}":
        return values, at + 1
    while True:
        if text[at : at + 1] != '"':
            raise _Refusal(f"no key (character {at})")
        key, at = _scan(text, at)
        if key in values:
            raise _Refusal(f"{key!r} stands twice")
        at = _space(text, _expect(text, _space(text, at), ":"))
        _, end = _scan(text, at)
        values[key] = text[at:end]
        at = _space(text, end)
        if text[at : at + 1] == "}":
            return values, at + 1
        at = _space(text, _expect(text, at, ","))


def _elements(text: str) -> list[str]:
    """The text of each element of an array that is known to be one."""
    elements: list[str] = []
    at = _space(text, 1)
    while text[at : at + 1] != "]":
        _, end = _scan(text, at)
        elements.append(text[at:end])
        at = _space(text, end)
        if text[at : at + 1] == ",":
            at = _space(text, at + 1)
    return elements


def _levels(text: str) -> int:
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _expect(text: str, at: int, character: str) -> int:
    if text[at : at + 1] != character:
        raise _Refusal(f"no {character!r} (character {at})")
    return at + 1
