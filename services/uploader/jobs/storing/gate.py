"""What stands before the puts of a job: is the object there already, and is it this put's turn?"""

import asyncio
import logging
import time

from services.uploader.errors import ConfigurationError, PoisonRecord, StoreError
from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.bucket.comparison import Expected, Finding
from services.uploader.jobs.storing.rate import Rate
from services.uploader.jobs.storing.tally import Tally
from services.uploader.upload_limit import UploadLimit
from shared.record import Record

log = logging.getLogger(__name__)


class JobGate:
    """Implements `services.uploader.partition.Gate`."""

    def __init__(
        self,
        tally: Tally,
        limit: UploadLimit,
        *,
        checker: Checker | None,
        rate: Rate | None,
        replaces: bool = True,
    ) -> None:
        """Prepare.

        Args:
            tally: counts what is there already.
            limit: of the puts, which questions share.
            checker: asks the bucket first; None: every record is put.
            replaces: whether an object with other bytes is written over; else the record is one that S3 can never take.
            rate: of puts and questions together; None: as fast as S3 takes them.

        """
        self._tally = tally
        self._limit = limit
        self._checker = checker
        self._rate = rate
        self._replaces = replaces
        self._told = False  # that S3 does not let us look

    async def lets_pass(self, record: Record, key: str, body: bytes) -> bool:
        """Whether the record is to be put, in its turn. A question has its turn, too, and its place among the puts."""
        if self._checker is not None:
            await self._wait()
            if await self._is_there(self._checker, record, key, body):
                self._tally.there += 1
                return False
        await self._wait()
        return True

    async def _wait(self) -> None:
        if self._rate is not None:
            wait_s = self._rate.wait_s(time.monotonic())
            if wait_s > 0:
                await asyncio.sleep(wait_s)

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
            async with self._limit.slot() as slot:
                try:
                    told = await checker.tell(expected)
                except StoreError as error:
                    slot.error = error
                    raise
        except ConfigurationError as error:
            # Who may not list hears 403 of what is missing; and to put what is there harms nobody: the same bytes.
            self._tally.errors += 1
            if not self._told:
                self._told = True
                log.warning("S3 does not let us look; what cannot be looked at is put", extra={"cause": str(error)})
            return False
        except StoreError:
            self._tally.errors += 1
            raise
        if told.finding is Finding.DIFFERENT and not self._replaces:
            raise PoisonRecord("conflict", f"another object is at {key}: {told.why}")
        return told.finding is Finding.SAME
