"""A dead-letter topic inside the process, for tests of what sits above it: takes letters, or holds them while told to.

Stands for `services.uploader.dead_letter_topic.DeadLetters`; knows no Kafka and no share.
"""

from aiokafka import ConsumerRecord

from services.uploader.errors import PoisonRecord


class ScriptedDeadLetters:
    """`letters` are the offsets that were acknowledged, in their order; `held` those that wait while `refusing`."""

    def __init__(self) -> None:
        self.refusing = False
        self.letters: list[int] = []
        self.held: set[int] = set()
        self.stored = 0

    async def bury(self, raw: ConsumerRecord, _error: PoisonRecord, _attempts: int) -> bool:
        """Acknowledge, or hold."""
        if self.refusing:
            self.held.add(raw.offset)
            return False
        self.held.discard(raw.offset)
        self.letters.append(raw.offset)
        return True

    def settled(self) -> None:
        """A record was stored."""
        self.stored += 1

    def release(self, raw: ConsumerRecord) -> None:
        """A record waits no more."""
        self.held.discard(raw.offset)
