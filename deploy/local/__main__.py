"""`make run`, or `python -m deploy.local`: the whole system on this machine until Ctrl-C.

Owns the order of events, the signals, the lock and the last words; `stack` owns the parts. Exit code 0 after Ctrl-C
or SIGTERM once it was ready, 1 when a part fails, 128 and the signal's number when stopped before.
"""

import argparse
import contextlib
import fcntl
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TextIO

import botocore.exceptions

from deploy.local import sample
from deploy.local.jars import FetchError
from deploy.local.process import StartError
from deploy.local.show import Row, Screen
from deploy.local.stack import BUCKET, LOCK, TOPIC, Crashed, Stack, choose_ports, clear

_RUN = Path(__file__).resolve().parents[2] / ".run"
_WATCH_INTERVAL_S = 0.2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EXIT_SIGNAL = 128
_FAILURES = (
    StartError,
    FetchError,
    Crashed,
    OSError,
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.ClientError,
)


class Interrupted(BaseException):
    """A signal asked us to end. Like KeyboardInterrupt, not an Exception: nothing catches it on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # the stop has begun and is bounded; a second Ctrl-C must not break it off
    raise Interrupted(number)


def main() -> int:
    """Run until a signal, or until a part fails."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description="The whole system, until Ctrl-C.")
    parser.add_argument("--directory", type=Path, default=_RUN, help="for data, logs and `env`; emptied at every start")
    directory: Path = parser.parse_args().directory.absolute()
    started_s = time.monotonic()
    screen = Screen(sys.stdout)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()) and not (directory / LOCK).exists():
        print(f"error: --directory {directory} has files in it that are not ours", file=sys.stderr)
        return 2
    with (directory / LOCK).open("a+", encoding="ascii") as lock:
        holder = _take(lock)
        if holder is not None:
            message = f"`make run` is running already, pid {holder}, in {_shown(directory)}: stop it first"
            print(f"error: {message}", file=sys.stderr)
            return 1
        for number in _SIGNALS:
            signal.signal(number, _interrupt)
        try:
            return _run(directory, screen, started_s)
        except Interrupted as interrupt:
            screen.say("stopped before it was ready")
            return _EXIT_SIGNAL + interrupt.number


def _take(lock: TextIO) -> str | None:
    """Lock the file for our lifetime. Returns None, or the pid of the process that has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        return lock.read().strip() or "unknown"
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return None


def _run(directory: Path, screen: Screen, started_s: float) -> int:
    left_behind = clear(directory)
    if left_behind:
        screen.say(f"    ended {left_behind} processes that an earlier run had left behind")
    stack = Stack(directory, choose_ports(screen), screen)
    try:
        stack.start()
        _try_out(stack, screen)
        _welcome(stack, screen, time.monotonic() - started_s)
        with contextlib.suppress(Interrupted):
            _watch(stack)
        _farewell(stack, screen)
    except _FAILURES as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        stack.stop()
    screen.say("stopped")
    return 0


def _try_out(stack: Stack, screen: Screen) -> None:
    bodies = sample.collections()
    count = sum(len(body["data"]) for body in bodies)
    with screen.step(f"{len(bodies)} collections, {count} payloads of this machine's telemetry, posted and stored"):
        ids = [payload_id for body in bodies for payload_id in stack.post(body)]
        objects = stack.wait_stored(ids)
    screen.say()
    screen.table([Row(one.key, one.size_bytes, stack.s3.read(BUCKET, one.key)) for one in objects])


def _welcome(stack: Stack, screen: Screen, took_s: float) -> None:
    url = stack.collections_url
    example = '{"version":"1","token":"me","data":[{"n":1e400},[ 1 ,2 ]]}'
    environment = shlex.quote(_shown(stack.directory / "env"))
    ops = ", ".join(f"{tier.ops_url} ({tier.process.name})" for tier in (stack.ingest, *stack.uploaders))
    screen.say(
        f"""
ready in {took_s:.1f} s: collections go to {url}

  API docs     {url.removesuffix("/v1/collections")}/docs
  S3           {stack.s3.endpoint_url}   s3://{BUCKET}
  Kafka        {stack.kafka.bootstrap_servers}   topic {TOPIC}
  status page  {stack.uploaders[0].ops_url}/
  ops          {ops}; each with /livez /readyz /metrics
  logs         {_shown(stack.directory / "logs")}
  try          curl -sS {url} -H 'Content-Type: application/json' -d {shlex.quote(example)}
  read back    . {environment} && python -m deploy.local.stored   (with a KEY: its exact bytes)
  prove it     . {environment} && spillway-uploader verify --from 1h   (and lag, replay, redrive: --help)

Objects and records last until this stops: S3 here is in memory, and every run begins empty. Ctrl-C to stop."""
    )


def _shown(path: Path) -> str:
    """A path as one types it here: short inside the working directory, whole elsewhere."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _watch(stack: Stack) -> None:
    while True:
        stack.check()
        time.sleep(_WATCH_INTERVAL_S)


def _farewell(stack: Stack, screen: Screen) -> None:
    screen.say()
    with screen.step("stopping: ingest drains, the uploaders catch up"):
        count, size_bytes, waiting = stack.drain()
    screen.say(f"stored in this run: {count} objects, {size_bytes} bytes in s3://{BUCKET}")
    if waiting:
        screen.say(f"{waiting} records were still in Kafka only")
    screen.say("all of it is gone now: S3 was in memory, and the next run begins empty")


if __name__ == "__main__":
    sys.exit(main())
