"""Prometheus's own judge of rules and configurations, where it is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

_PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    _PROMTOOL is None, reason="no promtool on PATH (Debian: apt-get install prometheus)"
)


def promtool(*arguments: str | Path) -> None:
    """Run it.

    Raises:
        AssertionError: it refuses, with its own words.

    """
    assert _PROMTOOL is not None
    done = subprocess.run([_PROMTOOL, *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
