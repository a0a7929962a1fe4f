"""Where the tests of the manifests take their objects from, and the settings that a pod's process would read.

Each check is made of the files as they stand (`written`), which needs nothing, and of every overlay and component
combination that the page names (`built`), which needs kustomize or kubectl.
"""

import re
from collections.abc import Callable, Sequence

import pytest
import yaml

from services.ingest.settings import IngestSettings
from services.uploader.jobs.settings import JobSettings
from services.uploader.settings import UploaderSettings
from shared.kafka import KafkaSettings
from shared.settings import EnvironmentSettings
from tests.harness import manifests
from tests.harness.manifests import KUBERNETES, Json, Workload, workloads

Objects = Sequence[Json]
Source = Callable[[], Objects]

needs_kustomize = pytest.mark.skipif(manifests.kustomize() is None, reason="neither kustomize nor kubectl is installed")


def _sources(*, jobs: bool) -> list[object]:
    """Where the objects come from."""
    found: list[object] = [
        pytest.param(lambda overlay=overlay: manifests.written(overlay), id=f"written:{overlay}")
        for overlay in ("dev", "production")
    ]
    for overlay, components in manifests.combinations():
        if jobs or not overlay.endswith("/jobs"):
            found.append(
                pytest.param(
                    lambda overlay=overlay, components=components: manifests.built(overlay, components),
                    id="built:" + "+".join((overlay, *components)),
                    marks=needs_kustomize,
                )
            )
    return found


everywhere = pytest.mark.parametrize("source", _sources(jobs=True))
deployed = pytest.mark.parametrize("source", _sources(jobs=False))
only_built = pytest.mark.parametrize("source", _sources(jobs=True)[2:])


def secrets() -> dict[str, dict[str, str]]:
    """The Secrets that the page asks for, with some value for each entry."""
    return {
        name[0]: {key: "x" for key in keys if re.fullmatch(r"[A-Z0-9_]+", key)}
        for name, keys, *_ in manifests.table("secrets")
    }


def settings_of(one: Workload) -> type[EnvironmentSettings]:
    """What its process reads."""
    if one.container["name"] == "spillway-ingest":
        return IngestSettings
    return {"run": UploaderSettings, "topics": KafkaSettings}.get(one.container["args"][0], JobSettings)


def loaded(objects: Objects, one: Workload, patch: pytest.MonkeyPatch) -> EnvironmentSettings:
    """The settings as its process would read them; a bad or missing one raises."""
    for name in settings_of(one).model_fields:
        patch.delenv(name.upper(), raising=False)
    for name, value in manifests.environment(objects, one, secrets()).items():
        patch.setenv(name, value)
    return settings_of(one)()


def ours(objects: Objects) -> list[Workload]:
    """The workloads that run our code."""
    return [one for one in workloads(objects) if one.ours]


def job_templates() -> list[Json]:
    """The Jobs of deploy/kubernetes/jobs, as they stand there."""
    paths = [path for path in (KUBERNETES / "jobs").glob("*.yaml") if path.name != "kustomization.yaml"]
    return [yaml.safe_load(path.read_text("utf-8")) for path in paths]
