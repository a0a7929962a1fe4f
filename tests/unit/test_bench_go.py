"""The sink and the load generator of the benchmark pass their own tests, where there is a Go compiler.

The Go peer's are part of its build, in `make bench`: its modules come from a registry, and to vet them takes minutes.
"""

import shutil
import subprocess

import pytest

from tests.harness.processes import ROOT


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go compiler")
@pytest.mark.parametrize("command", ["vet", "test"])
def test_the_programs_pass_their_own_tests(command: str) -> None:
    """Checksums that meet, distinct payloads, answers checked, an open loop's latencies."""
    argv = ["go", command, "./..."]
    done = subprocess.run(argv, cwd=ROOT / "bench", capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
