"""Requests whose heads are wrong in every way that clients, scanners and attackers have come up with.

Seeded, not drawn: a request is bytes, and every seed is another one.
"""

import random

BODY = b'{"version":"1","token":"t","data":["head"]}'
PAYLOAD = b'"head"'

_POST = b"POST /v1/collections HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_GOOD = (
    _POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    _POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n",
    _POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
    b"POST /v1/collections HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
    b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
    b"HEAD /v1/collections HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
)
_BAD = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),  # a TLS client
    b"GET /\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
    b"POST " + b"/" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(5_000)) + b"\r\n",
)
_LINES = (
    *(b"Content-Length: 5\r\n", b"Content-Length: 43, 43\r\n", b"Content-Length: -1\r\n", b"Content-Length: \r\n"),
    *(b"Content-Length: 99999999999999999999999999\r\n", b"Content-Length: 0x2b\r\n", b"Content-Length: +43\r\n"),
    *(b"Content-Length: 18446744073709551615\r\n", b"Content-Length: 999999999999\r\n", b"Content-Length : 43\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: x\r\n"),
    *(b"Transfer-Encoding: chunked, chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n", b"TE: trailers\r\n"),
    *(b"Expect: 100-continue\r\n", b"Expect: 200-ok\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n"),
    *(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"),
    *(
        b"Host: y\r\n",
        b"Host: \xff\r\n",
        b"No colon\r\n",
        b": no name\r\n",
        b" folded\r\n",
        b"X-\x00: y\r\n",
        b"X: \x00\r\n",
    ),
    *(
        b"X: \xc3\xa9\r\n",
        b"X: y\n",
        b"X: y\r",
        b"\r\n",
        b"\n\n",
        b"X" * 3_000 + b": y\r\n",
        b"X: " + b"y" * 100_000 + b"\r\n",
    ),
    *(
        b"Content-Type: text/plain\r\n",
        b"Content-Type: application/json; charset=utf-16\r\n",
        b"Content-Type: \xff\r\n",
    ),
    *(b"Content-Encoding: gzip\r\n", b"Content-Encoding: zstd\r\n", b"Content-Encoding: gzip, gzip\r\n"),
    *(b"Content-Encoding: br\r\n", b"Content-Encoding: \xff\r\n", b"Content-Encoding: identity\r\n"),
    *(
        b"Authorization: Bearer \xff\r\n",
        b"Authorization: Basic x\r\n",
        b"Authorization: Bearer\r\n",
        b"Authorization:\r\n",
    ),
    *(b"Authorization: Bearer t\r\nAuthorization: Bearer u\r\n", b"Partition-Key: \x7f\r\n", b"Partition-Key:\r\n"),
    *(
        b"Idempotency-Key: x\r\n",
        b'Idempotency-Key: "\r\n',
        b"Idempotency-Key: \xff\r\n",
        b"X-Request-Id: \xff \xff\r\n",
    ),
    *(b"Idempotency-Key: 00000000-0000-7000-8000-000000000000\r\n", b"traceparent: 00-\xff\r\n", b"Trailer: X\r\n"),
)
_PIECES = (
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\0", b"\xff", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9"),
    *(b"HTTP/1.2", b"HTTP/1.10", b"/", b"?", b"#", b"%", b"%00", b"..", b"\\", b"*", b"http://x/", b";", b",", b"0"),
)


def request(seed: int) -> bytes:
    """One request: good but for what one to three mistakes did to its head."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    if chance.randrange(10) == 0:
        return chance.choice(_BAD)
    good = chance.choice(_GOOD)
    split = good.index(b"\r\n\r\n") + 2
    head, rest = bytearray(good[:split]), good[split:]
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(head))
        match chance.randrange(6):
            case 0:
                head[at] ^= 1 << chance.randrange(8)
            case 1:
                del head[at : at + chance.choice((1, 2, 10))]
            case 2:
                head[at:at] = chance.choice(_PIECES)
            case _:
                at = chance.choice(
                    [0, *(place + 2 for place in range(len(head) - 1) if head[place : place + 2] == b"\r\n")]
                )
                head[at:at] = chance.choice(_LINES)
        head = head or bytearray(b"\r\n")
    return bytes(head) + rest
