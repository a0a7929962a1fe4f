"""The Kubernetes manifests as values: built by kustomize where there is one, and what of them the cluster would make.

Owns the building of overlays, and what a container finds in its environment. Judges nothing; the tests do.
"""

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.harness.processes import ROOT

KUBERNETES = ROOT / "deploy/kubernetes"
PAGE = KUBERNETES / "README.md"

Json = dict[str, Any]


def kustomize() -> list[str] | None:
    """The command that builds a directory: `kustomize build`, or kubectl's own; None where neither is installed."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


def table(name: str) -> list[list[list[str]]]:
    """The table between the markers `name` of the page: for each row and cell what stands there in backticks."""
    text = PAGE.read_text("utf-8").split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    return [[re.findall(r"`([^`]+)`", cell) for cell in row.split("|")[1:-1]] for row in text.strip().splitlines()[2:]]


def combinations() -> list[tuple[str, tuple[str, ...]]]:
    """Every overlay with its components that the page names."""
    return [(overlay[0], tuple(components)) for overlay, components in table("combinations")]


@functools.cache
def built(
    overlay: str,
    components: tuple[str, ...] = (),
    *,
    namespace: str | None = None,
    label: tuple[str, str] | None = None,
) -> tuple[Json, ...]:
    """The objects of an overlay with components, as `kubectl apply -k` would send them.

    Args:
        overlay: a directory of `overlays`.
        components: those of `components`, in this order.
        namespace: another than the manifests' own, as the page says how.
        label: one more, of every object and every pod.

    """
    with tempfile.TemporaryDirectory() as directory:
        base = os.path.relpath(KUBERNETES, Path(directory).resolve())  # kustomize refuses an absolute path
        kustomization: Json = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{base}/overlays/{overlay}"],
            "components": [f"{base}/components/{component}" for component in components],
        }
        if namespace:
            kustomization["namespace"] = namespace
        if label:
            kustomization["labels"] = [{"pairs": dict([label]), "includeTemplates": True}]
        (Path(directory) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), "utf-8")
        return build(Path(directory))


def component(name: str) -> list[Json]:
    """The objects of a component, as they stand in its files."""
    found: list[Json] = []
    for path in sorted((KUBERNETES / "components" / name).glob("*.yaml")):
        if path.name != "kustomization.yaml":
            found += yaml.safe_load_all(path.read_text("utf-8"))
    return found


def build(directory: Path) -> tuple[Json, ...]:
    """The objects of a directory. AssertionError with kustomize's own words where it refuses."""
    command = kustomize()
    assert command is not None
    done = subprocess.run([*command, str(directory)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def environment_file(path: Path) -> dict[str, str]:
    """The variables of an env file of kustomize."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)  # type: ignore[misc] # a line without `=` raises here


def written(overlay: str) -> tuple[Json, ...]:
    """The objects of `base` and the settings of an overlay, as they stand in the files; its patches are not applied."""
    found: list[Json] = []
    settings: dict[str, dict[str, str]] = {}
    for directory in (KUBERNETES / "base", KUBERNETES / "overlays" / overlay):
        kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text("utf-8"))
        for resource in kustomization["resources"]:
            if resource.endswith(".yaml"):
                found += yaml.safe_load_all((directory / resource).read_text("utf-8"))
        for generator in kustomization["configMapGenerator"]:
            for file in generator["envs"]:
                settings.setdefault(generator["name"], {}).update(environment_file(directory / file))
    found += [{"kind": "ConfigMap", "metadata": {"name": name}, "data": data} for name, data in settings.items()]
    for patch in kustomization.get("patches", []):
        _add_variables(found, patch)
    return tuple(found)


def _add_variables(objects: Sequence[Json], patch: Json) -> None:
    """Apply what a JSON patch adds to a container's `envFrom`; no other patch, which is kustomize's to do."""
    for step in yaml.safe_load(patch.get("patch", "[]")):
        if isinstance(step, dict) and step["path"] == "/spec/template/spec/containers/0/envFrom/-":
            one = named(objects, patch["target"]["kind"], patch["target"]["name"])
            one["spec"]["template"]["spec"]["containers"][0]["envFrom"].append(step["value"])


@dataclass(frozen=True)
class Workload:
    """A Deployment, StatefulSet, Job or CronJob, and the pods that it makes."""

    kind: str
    name: str
    spec: Json
    template: Json

    @property
    def labels(self) -> dict[str, str]:
        """Of its pods."""
        labels: dict[str, str] = self.template["metadata"]["labels"]
        return labels

    @property
    def pod(self) -> Json:
        """Their spec."""
        pod: Json = self.template["spec"]
        return pod

    @property
    def container(self) -> Json:
        """Their only container."""
        (container,) = self.pod["containers"]
        found: Json = container
        return found

    @property
    def ours(self) -> bool:
        """Whether it runs our code, and not a stand-in of the dev overlay."""
        return self.container["name"] in ("spillway-ingest", "spillway-uploader")

    def port(self, name: str) -> int:
        """The number of one of its ports."""
        (number,) = (port["containerPort"] for port in self.container["ports"] if port["name"] == name)
        return int(number)


def of_kind(objects: Sequence[Json], *kinds: str) -> list[Json]:
    """The objects of these kinds."""
    return [one for one in objects if one["kind"] in kinds]


def named(objects: Sequence[Json], kind: str, name: str) -> Json:
    """The one object of that kind and name."""
    (found,) = (one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)
    return found


def workloads(objects: Sequence[Json]) -> list[Workload]:
    """All that make pods."""
    found = []
    for one in of_kind(objects, "Deployment", "StatefulSet", "Job", "CronJob"):
        spec = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"]
        found.append(Workload(one["kind"], one["metadata"]["name"], spec, spec["template"]))
    return found


def workload(objects: Sequence[Json], name: str) -> Workload:
    """The one of that name."""
    (found,) = (one for one in workloads(objects) if one.name == name)
    return found


def environment(objects: Sequence[Json], one: Workload, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What the container finds in its environment; `secrets` are those that the manifests only name."""
    values: dict[str, str] = {}
    for source in one.container.get("envFrom", []):
        if "configMapRef" in source:
            values |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
        else:
            values |= secrets[source["secretRef"]["name"]]
    values |= {entry["name"]: entry["value"] for entry in one.container.get("env", []) if "value" in entry}
    return values


def references(one: Workload) -> Iterator[tuple[str, str]]:
    """Kind and name of each object that its pods cannot start without."""
    yield "ServiceAccount", one.pod.get("serviceAccountName", "default")
    for source in one.container.get("envFrom", []):
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if key in source:
                yield kind, source[key]["name"]
    for volume in one.pod.get("volumes", []):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]


_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def quantity_bytes(text: str) -> int:
    """`256Mi` in bytes."""
    return int(text[:-2]) * _UNITS[text[-2:]]
