"""A worker process as its supervisor holds it, with programs in a worker's place."""

import asyncio
import signal
import sys

import pytest
import uvloop

from services.ingest.workers.care import START_LOOKS, is_wedged
from services.ingest.workers.process import WorkerProcess

pytestmark = pytest.mark.usefixtures("loop_factory")

_SAYS_NOTHING = "import signal; signal.pause()"
_CLOSES_ITS_END = "import os, signal, sys; os.close(int(sys.argv[sys.argv.index('--channel') + 1])); signal.pause()"
_SAYS_NO_REPORT = (
    "import os, signal, sys; os.write(int(sys.argv[sys.argv.index('--channel') + 1]), b'\\0\\0\\0\\1x'); signal.pause()"
)


@pytest.fixture
def loop_factory() -> object:
    """The supervisor's loop: its processes are of another make."""
    return uvloop.new_event_loop


async def started(program: str) -> tuple[WorkerProcess, asyncio.Task[int]]:
    process = await WorkerProcess.start(0, [sys.executable, "-c", program], [], lambda: None)
    return process, asyncio.create_task(process.run())


@pytest.mark.parametrize("program", [_SAYS_NOTHING, _CLOSES_ITS_END], ids=["silent", "closed"])
async def test_one_that_says_nothing_is_wedged_in_the_end(program: str) -> None:
    """Also one that has closed its end of the channel, and lives on: it is not asked, and it has not answered."""
    process, running = await started(program)
    try:
        if program is _CLOSES_ITS_END:
            answer = process.ask()
            assert answer is not None
            await answer  # resolved by the end of the channel
            assert not running.done()
        for _ in range(START_LOOKS - 1):
            process.look()
        assert not is_wedged(process.standing)
        for _ in range(2):
            process.look()
        assert is_wedged(process.standing)
    finally:
        process.kill()
        assert await running == -signal.SIGKILL


async def test_one_that_says_what_is_no_report_is_killed() -> None:
    """Its figures would be nobody's."""
    process, running = await started(_SAYS_NO_REPORT)
    assert await running == -signal.SIGKILL
    assert process.last is None
