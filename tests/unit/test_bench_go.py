"""The sink and the load generator of the benchmark pass their own tests, where there is a Go compiler."""

import shutil
import subprocess

import pytest

from tests.harness.processes import ROOT


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go compiler")
@pytest.mark.parametrize("program", ["sink", "load"])
def test_the_programs_pass_their_own_tests(program: str) -> None:
    """`go vet` and `go test`: checksums that meet, distinct payloads, answers checked, an open loop's latencies."""
    for command in (["go", "vet"], ["go", "test"]):
        argv = [*command, f"./{program}"]
        done = subprocess.run(argv, cwd=ROOT / "bench", capture_output=True, text=True, check=False, timeout=110)
        assert done.returncode == 0, done.stdout + done.stderr
