"""A store inside the process, for tests of what sits above it. Passes the contract suite that the real client passes.

Owns no socket: a fault of the script becomes the error that the real client would raise for it.
"""

import asyncio
import re
from collections.abc import Mapping

from services.uploader.errors import ConfigurationError, PoisonRecord, StoreError, TransientError
from tests.fakes.script import Answer, Cut, Delay, Injection, Script, Shelf

_CONFIGURATION = frozenset({"AccessDenied", "NoSuchBucket"})
_POISON = frozenset({"EntityTooLarge", "KeyTooLongError", "MetadataTooLarge"})


class ScriptedStore:
    """Implements `services.uploader.store.Store`.

    `shelf` holds every version written, `script` the faults to come; `in_flight` and `in_flight_max` count puts.
    """

    def __init__(self, *, timeout_s: float = 0.2) -> None:
        self.script = Script()
        self.shelf = Shelf()
        self.timeout_s = timeout_s  # how long a put that hangs lasts
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
                self.shelf.store(key, bytes(body), dict(metadata), "application/octet-stream")
            else:
                await self._misbehave(injection, key, bytes(body), dict(metadata))
        finally:
            self.in_flight -= 1

    async def _misbehave(self, injection: Injection, key: str, body: bytes, metadata: dict[str, str]) -> None:
        fault = injection.fault
        if isinstance(fault, Answer):
            raise _answered(fault)
        if isinstance(fault, Delay) or fault in {Cut.STORE_THEN_HANG, Cut.STORE_THEN_DROP, Cut.TRUNCATE}:
            self.shelf.store(key, body, metadata, "application/octet-stream")
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.delay_s)
        elif fault in {Cut.HANG, Cut.STORE_THEN_HANG}:
            await injection.wait_over(self.timeout_s)
            raise TransientError("timeout", f"{key}: no answer within {self.timeout_s} s")
        else:
            raise TransientError("connection", f"{key}: the connection was lost")


def _answered(answer: Answer) -> StoreError:
    reason = re.sub(r"(?<!^)(?=[A-Z])", "_", answer.code).lower()
    if answer.code in _POISON:
        return PoisonRecord(reason, f"{answer.status} {answer.code}")
    kind = ConfigurationError if answer.code in _CONFIGURATION else TransientError
    return kind(reason, f"{answer.status} {answer.code}")
