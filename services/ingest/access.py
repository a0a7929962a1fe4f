"""Who is let in, and how much of it now: the tokens file and the quotas, asked for one request. Pure.

Owns the answers 401, 403 and 429. Without a tokens file everybody is let in, and nobody has a name.
"""

import math
from collections.abc import Callable

from services.ingest.problems import Code, Problem, RefusedError, retry_after
from services.ingest.quota import Quotas
from services.ingest.tokens import Token, Tokens

UNNAMED = ""
"""The owner of what came without a token in its head, until its body has told one. No entry has this name."""

_CHALLENGE = (b"www-authenticate", b'Bearer realm="spillway"')
_CHALLENGE_INVALID = (b"www-authenticate", b'Bearer realm="spillway", error="invalid_token"')


class Access:
    """The tokens that are known now, and what each has spent.

    Args:
        tokens: gives the tokens as they are now; None where no file is configured.
        quotas: what each token has spent.

    """

    def __init__(self, tokens: Callable[[], Tokens] | None, quotas: Quotas) -> None:
        self._tokens = tokens
        self._quotas = quotas

    @property
    def required(self) -> bool:
        """Whether a token is needed at all."""
        return self._tokens is not None

    def identify(self, secret: bytes | None) -> Token | None:
        """Whose the token is; None where none is needed.

        Raises:
            RefusedError: 401 or 403.

        """
        if self._tokens is None:
            return None
        if not secret:
            detail = "no token: send `Authorization: Bearer <token>`, or `token` in the body"
            raise RefusedError(Problem(Code.TOKEN_UNKNOWN, detail, (_CHALLENGE,)))
        token = self._tokens().find(secret)
        if token is None:
            raise RefusedError(Problem(Code.TOKEN_UNKNOWN, "nobody has this token", (_CHALLENGE_INVALID,)))
        if token.disabled:
            raise RefusedError(Problem(Code.TOKEN_DISABLED, f"the token of {token.name!r} is disabled"))
        return token

    def look(self, token: Token, now_s: float) -> None:
        """Take nothing of the token's quota yet.

        Raises:
            RefusedError: 429, it may not send now.

        """
        _check(token, self._quotas.wait_s(token, now_s))

    def take(self, token: Token, body_bytes: int, now_s: float) -> None:
        """Take one request and its bytes of the token's quota.

        Raises:
            RefusedError: 429, and nothing is taken.

        """
        _check(token, self._quotas.take(token, body_bytes, now_s))

    def give_back(self, token: Token, body_bytes: int, now_s: float) -> None:
        """What was taken has not been written."""
        self._quotas.give_back(token, body_bytes, now_s)


def _check(token: Token, wait_s: float) -> None:
    if wait_s <= 0:
        return
    limits = [
        f"{rate:g} {unit} a second"
        for rate, unit in ((token.requests_per_s, "requests"), (token.bytes_per_s, "bytes"))
        if rate is not None
    ]
    detail = f"{token.name!r} may send {' and '.join(limits)}"
    raise RefusedError(Problem(Code.QUOTA_SPENT, detail, (retry_after(math.ceil(wait_s)),)))
