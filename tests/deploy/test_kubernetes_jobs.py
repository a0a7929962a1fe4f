"""The Job templates: their commands are commands, a killed pod goes on, and a restricted namespace takes them."""

import argparse
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.uploader.cli import parse
from services.uploader.jobs.options import bounds_of
from services.uploader.jobs.replay.request import ReplayRequest, request_of
from tests.harness.processes import ROOT

DIRECTORY = ROOT / "deploy/kubernetes/jobs"
TEMPLATES = sorted(path for path in DIRECTORY.glob("*.yaml") if path.name != "kustomization.yaml")
REPLAYS = [path for path in TEMPLATES if path.name.startswith("replay")]
NAME = "spillway-uploader"
NOW_MS = round(datetime(2026, 11, 26, 2, tzinfo=UTC).timestamp() * 1000)
INDEX = 3

Json = dict[str, Any]


def manifest(path: Path) -> Json:
    found: Json = yaml.safe_load(path.read_text("utf-8"))  # one document a file, or it raises
    return found


def job_of(path: Path) -> Json:
    """The spec of the Job, also of a CronJob's."""
    spec: Json = manifest(path)["spec"]
    job: Json = spec["jobTemplate"]["spec"] if manifest(path)["kind"] == "CronJob" else spec
    return job


def pod_of(path: Path) -> Json:
    pod: Json = job_of(path)["template"]["spec"]
    return pod


def container_of(path: Path) -> Json:
    (container,) = pod_of(path)["containers"]
    found: Json = container
    return found


def arguments_of(path: Path) -> argparse.Namespace:
    """Its `args` with Kubernetes' own substitutions made, as the command parses them."""
    declared = {one["name"] for one in container_of(path).get("env", [])}
    values = {"JOB": manifest(path)["metadata"]["name"], "JOB_COMPLETION_INDEX": str(INDEX)}

    def value(found: re.Match[str]) -> str:
        assert found[1] in declared, f"$({found[1]}) stays as it is: env does not name it"
        return values[found[1]]

    return parse([re.sub(r"\$\((\w+)\)", value, argument) for argument in container_of(path)["args"]])


def request(path: Path, now_ms: int = NOW_MS) -> ReplayRequest:
    return request_of(arguments_of(path), now_ms, "unnamed", "payloads")


def rules(path: Path, action: str) -> Iterator[Json]:
    return (rule for rule in job_of(path)["podFailurePolicy"]["rules"] if rule["action"] == action)


def test_there_is_a_template_for_each_command() -> None:
    """`replay`, `verify`, `redrive`, and a CronJob; the page beside them names each."""
    assert {arguments_of(path).command for path in TEMPLATES} == {"replay", "verify", "redrive"}
    assert [path.name for path in TEMPLATES if manifest(path)["kind"] == "CronJob"] == ["verify-cronjob.yaml"]
    page = (DIRECTORY / "README.md").read_text("utf-8")
    assert set(re.findall(r"\]\(([\w-]+\.yaml)\)", page)) == {path.name for path in TEMPLATES}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_the_settings_are_those_of_the_live_uploaders(path: Path) -> None:
    """One ConfigMap and one Secret, as the uploaders' own; the image is theirs."""
    container = container_of(path)
    assert container["image"] == NAME
    assert container["envFrom"] == [{"configMapRef": {"name": NAME}}, {"secretRef": {"name": NAME}}]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_restricted_namespace_takes_it(path: Path) -> None:
    """The pod security standard `restricted`, a root file system that is only read, and no token of the API."""
    pod, container = pod_of(path), container_of(path)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
    assert container["resources"]["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all("emptyDir" in volume for volume in pod.get("volumes", []))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_it_ends_and_goes_away(path: Path) -> None:
    """A Job has a bound of tries and a time after which it is removed; a lost node is not one of the tries."""
    job = job_of(path)
    assert job.get("backoffLimit", job.get("backoffLimitPerIndex")) > 0
    assert job["ttlSecondsAfterFinished"] > 0
    assert pod_of(path)["restartPolicy"] == "Never"  # a podFailurePolicy is refused with any other
    assert [rule["onPodConditions"] for rule in rules(path, "Ignore")] == [
        [{"type": "DisruptionTarget", "status": "True"}]
    ]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_what_another_try_cannot_change_fails_the_job_at_once(path: Path) -> None:
    """Wrong options (2) of a job that stores; the verdict "not all there" (1) of `verify`, whose 2 may pass."""
    final = 1 if arguments_of(path).command == "verify" else 2
    expected = {"containerName": container_of(path)["name"], "operator": "In", "values": [final]}
    assert [rule["onExitCodes"] for rule in rules(path, "FailJob")] == [expected]


@pytest.mark.parametrize("path", REPLAYS, ids=lambda path: path.stem)
def test_a_pod_that_takes_anothers_place_goes_on_with_its_work(path: Path) -> None:
    """The job's name is the Job's own, from the label that Kubernetes sets, and its range means the same at any time:
    one that has ended can be started again.
    """
    asked = request(path)
    assert asked.job == manifest(path)["metadata"]["name"]
    label = {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}
    assert [one["valueFrom"] for one in container_of(path)["env"] if one["name"] == "JOB"] == [label]
    assert not asked.moves
    assert asked.bounds == request(path, NOW_MS + 3_600_000).bounds


def test_each_index_has_a_partition_of_its_own() -> None:
    """Index 3 reads partition 3 and no other; as many indexes as the contract's topic has partitions."""
    path = DIRECTORY / "replay-indexed.yaml"
    assert request(path).partitions == {INDEX}
    job = job_of(path)
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == parse(["topics"]).partitions
    assert 1 < job["parallelism"] <= job["completions"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_only_what_is_mounted_is_written_to(path: Path) -> None:
    """`--missing-to` names a file in a mounted volume."""
    target = getattr(arguments_of(path), "missing_to", None)
    mounts = [Path(mount["mountPath"]) for mount in container_of(path).get("volumeMounts", [])]
    assert mounts == ([] if target is None else [target.parent])


def test_the_nightly_runs_leave_no_gap_between_them() -> None:
    """A run that starts as late as it may still begins before the one of the night before ended."""
    path = DIRECTORY / "verify-cronjob.yaml"
    spec = manifest(path)["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("0 2 * * *", "Etc/UTC", "Forbid")
    latest_ms = NOW_MS + spec["startingDeadlineSeconds"] * 1000
    first = bounds_of(arguments_of(path), NOW_MS)
    late = bounds_of(arguments_of(path), latest_ms)
    day_ms = 24 * 3_600_000
    assert first.lower.ms <= NOW_MS - 2 * 3_600_000 - day_ms  # all of yesterday
    assert late.lower.ms <= first.upper.ms - day_ms
    assert first.upper.ms <= NOW_MS - 3_600_000  # what the live group may still have to do is not asked for
