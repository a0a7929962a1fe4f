"""A store inside the process, for tests of what sits above it. Passes the contract suite that the real client passes.

Owns no socket: a fault of the script becomes the error that the real client would raise for it.
"""

import asyncio
from collections.abc import Mapping

from services.uploader.errors import PoisonRecord, TransientError
from services.uploader.store.answers import Refusal, error_of
from tests.fakes.script import Altered, Answer, Cut, Delay, Dribble, Injection, Script, Shelf


class ScriptedStore:
    """Implements `services.uploader.store.Store`.

    `shelf` holds every version written, `script` the faults to come; `in_flight` and `in_flight_max` count puts.
    """

    def __init__(self, *, timeout_s: float = 0.2, create_only: bool = False) -> None:
        self.script = Script()
        self.shelf = Shelf()
        self.timeout_s = timeout_s  # how long a put that hangs lasts
        self.create_only = create_only
        self.in_flight = 0
        self.in_flight_max = 0

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Store, or do what the script says."""
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            await asyncio.sleep(0)  # a real put never completes at once
            injection = self.script.strike("PUT", key)
            if injection is None:
                self._store(key, bytes(body), dict(metadata))
            else:
                await self._misbehave(injection, key, bytes(body), dict(metadata))
        finally:
            self.in_flight -= 1

    def _store(self, key: str, body: bytes, metadata: dict[str, str]) -> None:
        existing = self.shelf.current(key) if self.create_only else None
        if existing is None:
            self.shelf.store(key, body, metadata, "application/octet-stream")
        elif existing.body != body:
            raise PoisonRecord("conflict", f"another object is at {key}")

    async def _misbehave(self, injection: Injection, key: str, body: bytes, metadata: dict[str, str]) -> None:
        fault = injection.fault
        if isinstance(fault, Answer):
            raise _answered(fault)
        if isinstance(fault, Altered | Delay | Dribble) or fault in {
            Cut.STORE_THEN_HANG,
            Cut.STORE_THEN_DROP,
            Cut.TRUNCATE,
        }:
            self._store(key, body, metadata)
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.delay_s)
        elif isinstance(fault, Altered):
            reason = "checksum_mismatch" if fault.value else "unexpected_answer"
            raise TransientError(reason, f"{key}: answered {fault.header} {fault.value}")
        elif isinstance(fault, Dribble) or fault in {Cut.HANG, Cut.STORE_THEN_HANG}:
            await injection.wait_over(self.timeout_s)
            raise TransientError("timeout", f"{key}: no answer within {self.timeout_s} s")
        else:
            raise TransientError("connection", f"{key}: the connection was lost")


def _answered(answer: Answer) -> Exception:
    about, fields = dict(answer.headers), dict(answer.fields)
    if answer.status == 200:
        return TransientError("server_error", f"a success with an error in it: {answer.code}")
    region = about.get("x-amz-bucket-region", fields.get("Region", ""))
    return error_of(Refusal(answer.status, answer.code, region=region), "bucket")
