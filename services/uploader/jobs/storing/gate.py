"""What stands before the puts of a job: is the object there already, and is it this put's turn?"""

import asyncio
import time

from services.uploader.errors import StoreError
from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.bucket.comparison import Expected, Finding
from services.uploader.jobs.storing.rate import Rate
from services.uploader.jobs.storing.tally import Tally
from shared.record import Record


class JobGate:
    """Implements `services.uploader.partition.Gate`."""

    def __init__(self, tally: Tally, *, checker: Checker | None, rate: Rate | None) -> None:
        """Prepare.

        Args:
            tally: counts what is there already.
            checker: asks the bucket first; None: every record is put.
            rate: of puts; None: as fast as S3 takes them.

        """
        self._tally = tally
        self._checker = checker
        self._rate = rate

    async def lets_pass(self, record: Record, key: str, body: bytes) -> bool:
        """Whether the record is to be put, in its turn."""
        if self._checker is not None and await self._is_there(self._checker, record, key, body):
            self._tally.there += 1
            return False
        if self._rate is not None:
            wait_s = self._rate.wait_s(time.monotonic())
            if wait_s > 0:
                await asyncio.sleep(wait_s)
        return True

    async def _is_there(self, checker: Checker, record: Record, key: str, body: bytes) -> bool:
        expected = Expected.of(
            partition=record.partition,
            offset=record.offset,
            key=key,
            record_id=record.id,
            body=body,
            kind=checker.kind,
        )
        try:
            return (await checker.tell(expected)).finding is Finding.SAME
        except StoreError:
            self._tally.errors += 1
            raise
