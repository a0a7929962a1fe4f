"""The commands of an operator's page, run as the page shows them, and what they print beside what it says.

A `console` block of a page is what somebody typed, after `$ `, and below it what was printed. All commands of a page
run in one shell, in order. A comment `<!-- meanwhile: a prefix is deleted -->` names what happens there to the stand;
the test makes it happen. Owns the reading of pages, the shell, and the comparison; knows no stand.

What is compared: standard output, and of standard error the lines with an error (progress goes there, too). Times,
dates, durations and rates count as equal, and so do runs of blanks; any other figure must be the page's own. `…` stands
for any text, alone in a line for any lines. A command that fails must be followed by `$ echo $?`.
"""

import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

DEADLINE_S = 60
_MARK = "--- the command has ended, exit code"
_TELL = f"__code=$?; printf '\\n{_MARK} %d\\n' $__code; (exit $__code)"
_MEANWHILE = re.compile(r"<!-- meanwhile: (.+) -->")
_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|\+00:00)?"), "<time>"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "<date>"),
    (re.compile(r"hour=\d\d"), "hour=<hour>"),
    (re.compile(r"\b(?:\d+ h \d\d min|\d+ min(?: \d\d s)?|\d+ s)\b"), "<duration>"),
    (re.compile(r'"seconds": [0-9.]+'), '"seconds": <number>'),
    (re.compile(r"\b\d+(?:\.\d+)?/s"), "<rate>/s"),
    # A probe ends by the clock: on a busy machine it has asked for fewer. That some or none are missing stays.
    (re.compile(r"S3 answered \d+ HEADs"), "S3 answered <number> HEADs"),
    (re.compile(r"\b[1-9]\d* of these objects"), "<some> of these objects"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, slots=True)
class Command:
    """What is typed, and the lines that the page shows below it. `line`: where in the page, from 1."""

    text: str
    shown: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """Something happens to the stand."""

    what: str


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command did. `errors` has all of standard error."""

    lines: tuple[str, ...]
    code: int
    errors: str


def read_page(text: str) -> list[Command | Meanwhile]:
    """The steps of a page, in order."""
    steps: list[Command | Meanwhile] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for _, line in lines:
        if found := _MEANWHILE.fullmatch(line):
            steps.append(Meanwhile(found[1]))
        elif line == "```console":
            steps += _block(lines)
    return steps


def _block(lines: Iterator[tuple[int, str]]) -> list[Command]:
    commands: list[Command] = []
    typed, shown, at = "", [""], 0
    for number, line in lines:
        if line.startswith("$ ") or line == "```":
            if typed:
                commands.append(Command(typed, tuple(shown), at))
            typed, shown, at = line[2:], [], number
        elif typed.endswith("\\"):
            typed += "\n" + line.removeprefix("> ")
        else:
            shown.append(line)
        if line == "```":
            break
    return commands


def difference(shown: Sequence[str], printed: Sequence[str]) -> str | None:
    """The first thing that was printed otherwise than the page says, for people; None: nothing."""
    if not shown:
        return None  # the page is silent about it
    wanted, got = [_masked(line) for line in shown], [_masked(line) for line in printed]
    return _first_difference([line for line in wanted if line], [line for line in got if line])


def _masked(line: str) -> str:
    for pattern, name in _MASKS:
        line = pattern.sub(name, line)
    return line.strip()


def _first_difference(wanted: Sequence[str], got: Sequence[str]) -> str | None:
    at = 0
    skipping = False
    for line in wanted:
        if line == "…":
            skipping = True
            continue
        while skipping and at < len(got) and not _fits(line, got[at]):
            at += 1
        if at >= len(got):
            return f"the page has {line!r}, and nothing more was printed"
        if not _fits(line, got[at]):
            return f"the page has {line!r}, and {got[at]!r} was printed"
        at, skipping = at + 1, False
    return None if skipping or at == len(got) else f"the page ends, and {got[at]!r} was printed"


def _fits(wanted: str, got: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in wanted.split("…")), got) is not None


class Shell:
    """One bash for a page; a context manager."""

    def __init__(self, environment: Mapping[str, str], directory: Path, names: Mapping[str, str]) -> None:
        """Prepare.

        Args:
            environment: all of it.
            directory: where the commands run; the shell keeps standard error there.
            names: what is printed, and how the page calls it; longer ones first.

        """
        self._environment = dict(environment)
        self._directory = directory
        self._errors = directory.parent / f"{directory.name}.stderr"
        self._names = names
        self._bash: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with self._errors.open("wb") as errors:
            self._bash = subprocess.Popen(
                ["bash", "--norc"],  # noqa: S607 - whichever the tester has
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._environment,
                cwd=self._directory,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._bash is not None
        self._bash.kill()
        self._bash.wait(10)
        for pipe in (self._bash.stdin, self._bash.stdout):
            if pipe is not None:
                pipe.close()

    def run(self, text: str) -> Printed:
        """Type it, and wait until it has ended.

        Raises:
            AssertionError: it has not within DEADLINE_S, or it ended the shell.

        """
        bash, before = self._bash, len(self._errors.read_bytes())
        assert bash is not None
        assert bash.stdin is not None
        assert bash.stdout is not None
        late = threading.Timer(DEADLINE_S, bash.kill)
        late.start()
        try:
            # In braces, so that it keeps the variables that it sets; its own status is there for the next command.
            bash.stdin.write(
                f"{{ {text}\n}} </dev/null\n__code=$?; printf '\\n{_MARK} %d\\n' $__code; (exit $__code)\n"
            )
            bash.stdin.flush()
            lines: list[str] = []
            for line in bash.stdout:
                if line.startswith(_MARK):
                    break
                lines.append(line.rstrip("\n"))
            else:
                raise AssertionError(f"{text!r} has not ended within {DEADLINE_S} s, or has ended the shell: {lines}")
        finally:
            late.cancel()
        errors = self._errors.read_bytes()[before:].decode(errors="replace")
        said = [line for line in errors.splitlines() if line.startswith("error: ")]
        return Printed(tuple(self._named("\n".join([*lines, *said])).splitlines()), int(line.split()[-1]), errors)

    def _named(self, text: str) -> str:
        for name, called in self._names.items():
            text = text.replace(name, called)
        return text


def play(
    steps: Sequence[Command | Meanwhile], shell: Shell, happen: Callable[[str], None], transcript: Path
) -> list[str]:
    """Run a page's steps in order; what differs from the page, a text a command.

    Args:
        steps: of `read_page`.
        shell: entered.
        happen: makes what a `meanwhile` names happen.
        transcript: gets all that was typed and printed, in the form of the page.

    """
    wrong: list[str] = []
    for number, step in enumerate(steps):
        if isinstance(step, Meanwhile):
            happen(step.what)
            continue
        printed = shell.run(step.text)
        with transcript.open("a") as file:
            file.write("\n".join([f"$ {step.text}", *printed.lines, ""]))
        said = _objection(step, printed, steps[number + 1 :])
        wrong += [f"line {step.line}: $ {step.text}\n  {said}\n{printed.errors}"] if said else []
    return wrong


def _objection(step: Command, printed: Printed, then: Sequence[Command | Meanwhile]) -> str | None:
    tells_code = bool(then) and isinstance(then[0], Command) and then[0].text == "echo $?"
    if printed.code and not tells_code:
        return f"exit code {printed.code}, and the page does not say so"
    return difference(step.shown, printed.lines)
