"""`spillway-uploader lag`: shows from Kafka's side how far behind the uploaders are, once or again and again.

Owns the command's arguments, what it prints, and the pace of its looks. `pipeline_questions` asks, `pipeline_view` says
what the answers mean. Needs nothing of S3.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine

from rich.console import Console
from rich.live import Live

from services.uploader.jobs.lag.document import document
from services.uploader.jobs.lag.questions import UnaskableError, asker_of
from services.uploader.jobs.lag.table import table, text
from services.uploader.jobs.lag.view import PipelineView, view_of
from services.uploader.jobs.signals import EXIT_INTERRUPTED
from services.uploader.settings import GroupSettings
from shared.settings import EXIT_CONFIGURATION, describe
from shared.signals import on_first_signal

SAMPLE_S = 2.0
SAMPLE_MIN_S, SAMPLE_MAX_S = 0.1, 3600.0

EXAMPLE = """examples:
  spillway-uploader lag                      one look; rates are measured over 2 seconds
  spillway-uploader lag --sample 30          rates over 30 seconds: a steadier estimate
  spillway-uploader lag --watch              a live table, until Ctrl-C
  spillway-uploader lag --output json | jq .total

environment variables:
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand `lag`."""
    parser = commands.add_parser(
        "lag",
        help="how far behind the uploaders are",
        description="Show, from Kafka's side alone, how far behind the uploaders' group is, and how fast it gets on.",
        epilog=EXAMPLE + describe(GroupSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--watch", action="store_true", help="look once every --sample seconds, until Ctrl-C")
    parser.add_argument("--output", choices=("text", "json"), default="text", help="(default %(default)s)")
    parser.add_argument(
        "--sample",
        type=_sample_s,
        default=SAMPLE_S,
        metavar="SECONDS",
        help="between the two looks that rates are measured by; 0: one look, no rates (default %(default)g)",
    )


def _sample_s(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if seconds != 0 and not SAMPLE_MIN_S <= seconds <= SAMPLE_MAX_S:
        raise argparse.ArgumentTypeError(f"must be 0, or from {SAMPLE_MIN_S:g} to {SAMPLE_MAX_S:g} seconds")
    return seconds


async def run(settings: GroupSettings, arguments: argparse.Namespace) -> int:
    """Look and print; the exit code: 0 shown, 1 Kafka could not be asked, 2 contradictory options."""
    if arguments.watch and arguments.sample == 0:
        return _failed("--watch looks once every --sample seconds: it cannot be 0", EXIT_CONFIGURATION)
    as_json = arguments.output == "json"
    show = _watch if arguments.watch else _once
    try:
        ended = await _until_interrupted(show(settings, arguments.sample, as_json=as_json))
    except UnaskableError as error:
        return _failed(str(error), 1)
    except BrokenPipeError:  # `| head`: whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter fails at its last flush
        return 0
    return 0 if ended or arguments.watch else EXIT_INTERRUPTED


def _failed(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the command's last word
    return code


async def _until_interrupted(work: Coroutine[None, None, None]) -> bool:
    """Do the work; False where SIGINT or SIGTERM ended it, its clients closed. Raises what it raises."""
    task, interrupted = asyncio.current_task(), False
    assert task is not None  # noqa: S101 - a coroutine runs in one

    def stop() -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    with on_first_signal(stop):
        try:
            await work
        except asyncio.CancelledError:
            if not interrupted:
                raise
            task.uncancel()
            return False
    return True


async def _once(settings: GroupSettings, sample_s: float, *, as_json: bool) -> None:
    before = None
    async with asker_of(settings) as asker:
        if sample_s:
            before = await asker.look(ages=False)
            await asyncio.sleep(sample_s)
        _print(view_of(await asker.look(), before), as_json=as_json)


async def _watch(settings: GroupSettings, sample_s: float, *, as_json: bool) -> None:
    """Look without end. Only the first look's failure is one of the command: later ones are shown, and tried again."""
    if as_json or not sys.stdout.isatty():
        await _watched(
            settings,
            sample_s,
            lambda view: _print(view, as_json=as_json, apart=True),
            lambda _view, error: print(f"not answered: {error}", file=sys.stderr, flush=True),  # noqa: T201
        )
        return
    with Live(console=Console(file=sys.stdout), auto_refresh=False) as live:
        await _watched(
            settings,
            sample_s,
            lambda view: live.update(table(view), refresh=True),
            lambda view, error: live.update(table(view, str(error)), refresh=True),
        )


async def _watched(
    settings: GroupSettings,
    sample_s: float,
    show: Callable[[PipelineView], None],
    trouble: Callable[[PipelineView, UnaskableError], None],
) -> None:
    before, view = None, None
    while True:
        try:
            # Opened anew after a failure: a client that has lost all brokers it knows never asks the bootstrap list.
            async with asker_of(settings) as asker:
                while True:
                    look = await asker.look()
                    view = view_of(look, before)
                    before = look
                    show(view)
                    await asyncio.sleep(sample_s)
        except UnaskableError as error:
            if view is None:
                raise
            trouble(view, error)
            await asyncio.sleep(sample_s)


def _print(view: PipelineView, *, as_json: bool, apart: bool = False) -> None:
    shown = json.dumps(document(view)) if as_json else text(view) + ("\n" if apart else "")
    print(shown, flush=True)  # noqa: T201 - the command's answer
