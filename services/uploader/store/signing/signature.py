"""AWS Signature Version 4, of one secret, region and service. Pure: the time is an argument, nothing is sent.

The rule is AWS's ("Signature Version 4 signing process"); a property test holds every signature against botocore's.
"""

import hashlib
import hmac
from datetime import UTC, datetime

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "s3"
UNSIGNED = b"UNSIGNED-PAYLOAD"
_DAY_LETTERS = 8
_BLOCK_BYTES = 64  # of SHA-256


class Signer:
    """Signs canonical requests. The day's key is kept: four of the five hashes of a signature are the same all day."""

    def __init__(self, secret: str, region: str) -> None:
        self._secret = secret
        self._region = region
        self._second = -1
        self._inner = self._outer = hashlib.sha256()  # of HMAC with the day's key
        self.time = b""  # of the last `at`, as X-Amz-Date wants it
        self.scope = b""  # likewise, without the access key
        self._prefix = b""  # what a string to sign begins with

    def at(self, now_s: float) -> None:
        """Let the next signatures be of this second (since 1970)."""
        second = int(now_s)
        if second == self._second:
            return
        moment = datetime.fromtimestamp(second, UTC).strftime("%Y%m%dT%H%M%SZ").encode()
        if moment[:_DAY_LETTERS] != self.time[:_DAY_LETTERS]:
            key = self._key_of(moment[:_DAY_LETTERS]).ljust(_BLOCK_BYTES, b"\0")
            self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
            self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))
            self.scope = b"%b/%b/%b/aws4_request" % (moment[:_DAY_LETTERS], self._region.encode(), SERVICE.encode())
        self._second = second
        self.time = moment
        self._prefix = b"%b\n%b\n%b\n" % (ALGORITHM.encode(), moment, self.scope)

    def sign(self, canonical: bytes) -> str:
        """The signature of a canonical request at the second of the last `at`."""
        # HMAC (RFC 2104) from two states that hold the key: OpenSSL's own sets up the key each time, 3 times dearer.
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(self._prefix + hashlib.sha256(canonical).hexdigest().encode())
        outer.update(inner.digest())
        return outer.hexdigest()

    def _key_of(self, day: bytes) -> bytes:
        key = b"AWS4" + self._secret.encode()
        for part in (day, self._region.encode(), SERVICE.encode(), b"aws4_request"):
            key = hmac.digest(key, part, "sha256")
        return key
