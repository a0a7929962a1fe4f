"""The programs printed in docs/clients.md, taken out of the page and made ready to run.

Owns the page's text, the runtimes that its programs need, and the life of a child that runs one. Judges nothing.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.harness.processes import ROOT

PAGE = (ROOT / "docs/clients.md").read_text("utf-8")
PROGRAMS: dict[str, str] = dict(re.findall(r"^```\w+ (send\.\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
TOKEN = "hush-hush"  # noqa: S105 - a test's own

_RUN_DEADLINE_S = 90
_BUILD_DEADLINE_S = 200
_SHORTER = {
    "send.sh": (("foreground 300", "foreground 3"), ("--max-time 45", "--max-time 1")),
    "send.py": (("TOTAL_S = 300", "TOTAL_S = 3"), ("TRY_S = 45", "TRY_S = 1")),
    "send.go": (("totalTime = 300 *", "totalTime = 3 *"), ("tryTime   = 45 *", "tryTime   = 1 *")),
    "send.mjs": (("totalMs = 300_000", "totalMs = 3_000"), ("tryMs = 45_000", "tryMs = 1_000")),
}
_NEEDS = {"send.sh": ("bash", "curl", "timeout"), "send.py": (), "send.go": ("go",), "send.mjs": ("node",)}
_RUNNERS = {"send.sh": ("bash",), "send.mjs": ("node",), "send.py": (sys.executable, "-I", "-S")}  # no site-packages
_OLDEST = {  # as the page says
    "curl": (("curl", "--version"), (7, 71)),
    "go": (("go", "env", "GOVERSION"), (1, 22)),
    "node": (("node", "--version"), (18, 0)),
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the page, ready to run; `short` is the same with deadlines of seconds."""

    name: str
    argv: tuple[str, ...]
    short: tuple[str, ...]
    home: Path

    def run(self, url: str, body: bytes, *, key: str | None = None, short: bool = False) -> Ended:
        """Run it to its end, with `body` on its standard input.

        Raises:
            subprocess.TimeoutExpired: it has none; it was killed, with its children.

        """
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "TMPDIR": str(self.home)}
        environment |= {"SPILLWAY_URL": url, "SPILLWAY_TOKEN": TOKEN} | ({"SPILLWAY_KEY": key} if key else {})
        with subprocess.Popen(
            self.short if short else self.argv,
            env=environment,
            cwd=self.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as child:
            try:
                output, errors = child.communicate(body, timeout=_RUN_DEADLINE_S)
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)  # not reaped yet, so the id is still its own
                raise
        return Ended(child.returncode, output.decode(), errors.decode())


def why_not(name: str) -> str | None:
    """Why this machine cannot run the program, or None."""
    for command in _NEEDS[name]:
        if shutil.which(command) is None:
            return f"no {command}"
        ask, oldest = _OLDEST.get(command, ((), (0, 0)))
        if ask:
            said = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=True).stdout
            found = re.search(r"([0-9]+)\.([0-9]+)", said)
            if found is None or (int(found[1]), int(found[2])) < oldest:
                return f"no {command} >= {oldest[0]}.{oldest[1]}: {said.splitlines()[0]}"
    return None


def prepare(name: str, home: Path) -> Program:
    """Write the program, and its shortened twin, into `home`; build them where their language wants it."""
    return Program(
        name, _ready(name, PROGRAMS[name], home / "long"), _ready(name, _shortened(name), home / "short"), home
    )


def _shortened(name: str) -> str:
    code = PROGRAMS[name]
    for long, short in _SHORTER[name]:
        assert code.count(long) == 1, f"{name} does not say {long!r} once"
        code = code.replace(long, short)
    return code


def _ready(name: str, code: str, directory: Path) -> tuple[str, ...]:
    directory.mkdir()
    source = directory / name
    source.write_text(code, "utf-8")
    if name != "send.go":
        return (*_RUNNERS[name], str(source))
    # Kept between runs, as Kafka's jars are: it holds the compiled standard library.
    offline = {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOCACHE": str(ROOT / ".cache/go")}
    built = subprocess.run(
        ["go", "build", "-o", "send", name],  # noqa: S607 - whichever is on the PATH
        env={**os.environ, **offline},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=_BUILD_DEADLINE_S,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return (str(directory / "send"),)
