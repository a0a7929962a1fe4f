"""The stack of docker-compose.yml under a project name and host ports of a test's own, and what Docker says of it.

Owns the project: its containers, network, volumes and images go with `remove`, which finds them by the project's name,
so that a start that failed half-way leaves nothing either. Knows nothing of what the services do.
"""

import json
import os
import random
import subprocess
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from deploy.local.ports import is_free
from tests.harness.engines import docker_missing
from tests.harness.processes import ROOT, free_port, inherited

Json = dict[str, Any]

COMPOSE_FILE = ROOT / "docker-compose.yml"
TIERS = ("ingest", "uploader")
UPLOADERS_MAX = 12  # as many as partitions
UP_DEADLINE_S = 600
"""A first start builds two images and fetches their packages and two others."""

needs_docker = pytest.mark.skipif(docker_missing() is not None, reason=str(docker_missing()))


def docker(*arguments: str, deadline_s: float = 60, environment: dict[str, str] | None = None) -> str:
    """Run one docker command; its standard output.

    Raises:
        AssertionError: it failed; with all that it said.

    """
    done = subprocess.run(
        ["docker", *arguments],  # noqa: S607 - wherever it is installed
        cwd=ROOT,
        env={**inherited(), **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def inspect(name: str) -> Json:
    """What Docker knows of a container or an image."""
    found: list[Json] = json.loads(docker("inspect", name))
    return found[0]


def build(tier: str, tag: str, *options: str) -> str:
    """Build a tier's image from this checkout; its name."""
    name = f"spillway-{tier}:{tag}"
    arguments = ("--file", f"services/{tier}/Dockerfile", "--tag", name, *options)
    docker("build", "--quiet", *arguments, ".", deadline_s=UP_DEADLINE_S)
    return name


def free_range(length: int) -> str:
    """Neighbouring free ports of 127.0.0.1, as `first-last`; of those that `free_port` leaves alone."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    for first in random.sample(range(19_000 + 100 * worker, 19_100 + 100 * worker - length), 50):
        if all(is_free(port) for port in range(first, first + length)):
            return f"{first}-{first + length - 1}"
    raise AssertionError(f"no {length} free ports in a row")


class Stack:
    """One project. Nothing runs before `up`."""

    def __init__(self) -> None:
        self.project = f"spillway-test-{uuid.uuid4().hex[:8]}"
        self.http_port = free_port()
        self.s3_port = free_port()
        self.uploader_ports = free_range(UPLOADERS_MAX)
        self.was_up = False
        self._environment = {
            "SPILLWAY_TAG": self.project,
            "SPILLWAY_HTTP_PORT": str(self.http_port),
            "SPILLWAY_INGEST_OPS_PORT": str(free_port()),
            "SPILLWAY_UPLOADER_PORTS": self.uploader_ports,
            "SPILLWAY_S3_PORT": str(self.s3_port),
        }

    @property
    def collections_url(self) -> str:
        """Where collections are posted."""
        return f"http://127.0.0.1:{self.http_port}/v1/collections"

    @property
    def s3_url(self) -> str:
        """The S3 server, from this machine."""
        return f"http://127.0.0.1:{self.s3_port}"

    def compose(self, *arguments: str, deadline_s: float = 120) -> str:
        """One `docker compose` command of this project; its standard output."""
        project = ("--project-name", self.project, "--file", str(COMPOSE_FILE))
        return docker("compose", *project, *arguments, deadline_s=deadline_s, environment=self._environment)

    def up(self, *options: str) -> None:
        """Start what does not run, as a user would, and wait until all is healthy."""
        try:
            self.compose("up", "--wait", *options, deadline_s=UP_DEADLINE_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None
        self.was_up = True

    def healthy(self, expected: Mapping[str, int]) -> bool:
        """Whether so many containers of each service run, are healthy, and no others do."""
        lines = self.compose("ps", "--format", "json").splitlines()
        found = Counter(one["Service"] for one in map(json.loads, lines) if one["Health"] == "healthy")
        return found == Counter(expected) and len(lines) == found.total()

    def ids(self, service: str, *, running: bool = True) -> list[str]:
        """Its containers, the oldest first; also those that have ended, unless `running`."""
        found = self.compose("ps", "--quiet", *(() if running else ("--all",)), service).split()
        return sorted(found, key=lambda one: str(inspect(one)["Created"]))

    def run(self, service: str, *arguments: str, deadline_s: float = 120) -> str:
        """A command of the uploader's image in a container of its own that is gone afterwards; its standard output."""
        return self.compose("run", "--rm", "--no-deps", "--no-TTY", service, *arguments, deadline_s=deadline_s)

    def logs(self) -> str:
        """The end of every container's log."""
        return self.compose("logs", "--no-color", "--tail", "40")

    def remove(self) -> None:
        """Everything of the project, by its name."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        for tier in TIERS:
            if docker("image", "ls", "--quiet", f"spillway-{tier}:{self.project}"):
                docker("image", "rm", f"spillway-{tier}:{self.project}")


def exec_python(container: str, program: str) -> str:
    """Run a program in a running container with its own Python: there is nothing else in it to rely on."""
    return docker("exec", container, "python", "-c", program).strip()


def failing(container: str, arguments: Sequence[str]) -> int:
    """The exit code of a command in a running container."""
    done = subprocess.run(
        ["docker", "exec", container, *arguments],  # noqa: S607
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode
