"""Access: who is let in, who is not, and what each is told."""

import hashlib
import json

import pytest

from services.ingest.access import Access
from services.ingest.problems import Code, RefusedError
from services.ingest.quota import Quotas
from services.ingest.tokens import Token, Tokens


def access(**changes: object) -> Access:
    entry = {"name": "a", "sha256": hashlib.sha256(b"secret").hexdigest(), **changes}
    tokens = Tokens.parse(json.dumps([entry]).encode())
    return Access(lambda: tokens, Quotas(burst_s=1))


def token_of(door: Access) -> Token:
    token = door.identify(b"secret")
    assert token is not None
    return token


def test_without_a_file_everybody_is_let_in() -> None:
    """No tokens file: no name, no refusal, whatever is sent."""
    door = Access(None, Quotas(burst_s=1))
    assert door.identify(None) is door.identify(b"x") is None
    assert not door.required


@pytest.mark.parametrize(("secret", "invalid"), [(None, False), (b"", False), (b"Secret", True), (b"secret ", True)])
def test_a_missing_or_unknown_token_is_challenged(secret: bytes | None, *, invalid: bool) -> None:
    """401 with the challenge of RFC 6750 §3, which tells a wrong token from a missing one, and never repeats it."""
    with pytest.raises(RefusedError) as refused:
        access().identify(secret)
    problem = refused.value.problem
    challenge = dict(problem.headers)[b"www-authenticate"]
    assert problem.code is Code.TOKEN_UNKNOWN
    assert challenge.startswith(b"Bearer ")
    assert (b"invalid_token" in challenge) == invalid
    assert "ecret" not in problem.detail


def test_a_disabled_token_is_403() -> None:
    """Its owner is told by name that it is known, and shut out."""
    with pytest.raises(RefusedError) as refused:
        access(disabled=True).identify(b"secret")
    assert refused.value.problem.code is Code.TOKEN_DISABLED
    assert "'a'" in refused.value.problem.detail


def test_a_spent_quota_says_how_long() -> None:
    """Two requests a second, a burst of a second: the third is a 429, and the told wait is enough and whole."""
    door = access(requests_per_s=2)
    token = token_of(door)
    for _ in range(2):
        door.look(token, 10.0)
        door.take(token, 100, 10.0)
    for ask in (lambda at: door.look(token, at), lambda at: door.take(token, 100, at)):
        with pytest.raises(RefusedError) as refused:
            ask(10.0)
        problem = refused.value.problem
        assert (problem.code, problem.headers) == (Code.QUOTA_SPENT, ((b"retry-after", b"1"),))
        assert "2 requests a second" in problem.detail
    door.take(token, 100, 11.0)


def test_what_was_not_written_is_given_back() -> None:
    """A 503 of ours costs the client nothing of its quota."""
    door = access(requests_per_s=1)
    token = token_of(door)
    door.take(token, 100, 10.0)
    door.give_back(token, 100, 10.0)
    door.take(token, 100, 10.0)
