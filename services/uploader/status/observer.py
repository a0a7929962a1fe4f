"""Looks at the pipeline from Kafka's side while somebody looks at the page, and at no other time.

Owns the connections of the questions (`jobs.lag`), opened with the first viewer and closed after the last, and the
last looks. A page that is open on every uploader must not be a load: nobody who looks makes another look begin, all
viewers share the last one, and the oldest records, of which each costs a fetch, are read far more seldom.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator

from services.uploader.cancellation import cancelled_from_outside
from services.uploader.jobs.lag.look import Look, aged
from services.uploader.jobs.lag.questions import Asker, UnaskableError, asker_of
from services.uploader.jobs.lag.view import PipelineView, view_of
from services.uploader.settings import UploaderSettings
from services.uploader.status.seen import Observed

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 2.0
RATES_OVER_S = 10.0
"""Rates are of so many seconds: uploaders commit once a second, and two seconds show one, two or three commits."""

AGES_INTERVAL_S = 10.0
AGES_S_A_PARTITION = 0.2
"""How often the oldest records are read, in seconds: every ten, or with many partitions so seldom that a fetch of 1 MiB
for each of them makes no more than 5 MiB a second."""

LEFT_AFTER_S = 30.0
"""The last viewer is gone once nobody has asked for so long, in seconds: a tab in the background asks once a minute at
worst, and then gets a look that begins with its question."""


class Observer:
    """Shared by all viewers. Within `running`, that is, for anything to be seen."""

    def __init__(self, settings: UploaderSettings) -> None:
        self._settings = settings
        self._asked_s = -LEFT_AFTER_S  # when somebody last asked; monotonic
        self._asked = asyncio.Event()  # set while there are viewers
        self._looks: deque[Look] = deque()  # the last RATES_OVER_S of one connection, the oldest first
        self._aged: Look | None = None  # the last one that read the oldest records
        self._view: PipelineView | None = None
        self._trouble = ""
        self._dead_letters: int | None = None

    def observed(self) -> Observed:
        """What was seen last; asking keeps the looks going."""
        self._asked_s = time.monotonic()
        self._asked.set()
        age_s = 0.0 if self._view is None else max(0.0, time.monotonic() - self._view.look.clock_s)
        return Observed(self._view, age_s, self._trouble, self._dead_letters)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look while somebody asks, for as long as the context lasts."""
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._run())
            try:
                yield
            finally:
                looking.cancel()

    async def _run(self) -> None:
        """No error ends it: the page says it, and the next connection is tried."""
        while True:
            await self._asked.wait()
            try:
                async with asker_of(self._settings) as asker:
                    await self._look_on(asker)
            except UnaskableError as error:
                self._trouble = str(error)
            except asyncio.CancelledError:
                if cancelled_from_outside():
                    raise
                self._trouble = "the Kafka client cancelled itself"
            except Exception as error:  # a fault of ours is no reason to leave the uploader without its page
                log.exception("the status page cannot look at Kafka")
                self._trouble = f"{type(error).__name__}: {error}"
            self._looks.clear()
            if self._watched:
                await asyncio.sleep(LOOK_INTERVAL_S)
            else:
                self._forget()

    @property
    def _watched(self) -> bool:
        return time.monotonic() - self._asked_s < LEFT_AFTER_S

    async def _look_on(self, asker: Asker) -> None:
        ages_due_s = 0.0
        while self._watched:
            with_ages = time.monotonic() >= ages_due_s
            look = await asker.look(ages=with_ages)
            if with_ages:
                pause_s = max(AGES_INTERVAL_S, AGES_S_A_PARTITION * len(look.partitions))
                ages_due_s = time.monotonic() + pause_s
                self._aged = look
            elif self._aged is not None:
                look = aged(look, self._aged)
            self._take(look)
            self._dead_letters = await asker.records_in(self._settings.kafka_dead_topic)
            await asyncio.sleep(LOOK_INTERVAL_S)

    def _take(self, look: Look) -> None:
        while self._looks and look.clock_s - self._looks[0].clock_s > RATES_OVER_S + LOOK_INTERVAL_S:
            self._looks.popleft()
        self._view = view_of(look, self._looks[0] if self._looks else None)
        self._looks.append(look)
        self._trouble = ""

    def _forget(self) -> None:
        """Nobody looks. Whoever comes next must not take the last viewer's picture for today's."""
        self._asked.clear()
        self._view = self._aged = self._dead_letters = None
        self._trouble = ""
