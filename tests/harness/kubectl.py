"""kubectl, against the one cluster that somebody named for the tests, in a namespace that is a test's own.

Owns the command line and where the cluster is: `SPILLWAY_TEST_KUBECONFIG`, and never the KUBECONFIG or `~/.kube` of
whoever runs the tests, which may be a cluster that others live on.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.harness.manifests import Json

VARIABLE = "SPILLWAY_TEST_KUBECONFIG"
COMMAND_S = 300
"""The longest that one command may take, in seconds; what waits has its own, shorter deadline."""


def missing() -> str | None:
    """Why there is no cluster to ask; None where there is one."""
    if not os.environ.get(VARIABLE):
        return f"{VARIABLE} names no kubeconfig"
    return None if shutil.which("kubectl") else "kubectl is not installed"


class Kubectl:
    """The commands of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._kubeconfig = Path(os.environ[VARIABLE]).resolve(strict=True)

    def tried(self, *arguments: str, objects: Sequence[Json] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with the objects as its standard input."""
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        return subprocess.run(
            [
                str(shutil.which("kubectl")),
                f"--kubeconfig={self._kubeconfig}",
                f"--namespace={self.namespace}",
                *arguments,
            ],
            input="\n---\n".join(map(json.dumps, objects)),  # JSON, since `--raw` takes nothing else
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def __call__(self, *arguments: str, objects: Sequence[Json] = ()) -> str:
        """What the command prints. AssertionError, with the server's own words, where it fails."""
        done = self.tried(*arguments, objects=objects)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def apply(self, *options: str, objects: Sequence[Json]) -> None:
        """Server-side, with every unknown field refused and every warning an error: Pod Security's, a deprecation's."""
        self(
            "apply", "--server-side", "--validate=strict", "--warnings-as-errors", *options, "-f", "-", objects=objects
        )

    def get(self, *arguments: str) -> Json:
        """An object, or a list of them."""
        found: Json = json.loads(self("get", *arguments, "-o", "json"))
        return found

    def pods(self, selector: str) -> list[Json]:
        """The pods that a selector takes and that are not on their way out."""
        items: list[Json] = self.get("pods", f"--selector={selector}")["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def evict(self, pod: str) -> str:
        """Ask for a pod's eviction, as a drain does; empty, or why it was refused."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        done = self.tried("create", f"--raw={path}", "-f", "-", objects=[eviction])
        return done.stderr if done.returncode else ""


def ready(pod: Json) -> bool:
    """Whether the cluster counts a pod as ready."""
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
