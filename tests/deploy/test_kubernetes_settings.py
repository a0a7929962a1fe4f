"""The settings of deploy/kubernetes: variables are settings, commands are commands, and the numbers agree."""

import json

import pytest

from services.ingest.__main__ import _parser as ingest_parser
from services.ingest.connections import FLUSH_S
from services.ingest.settings import IngestSettings
from services.uploader.cli import parse
from services.uploader.consumer import END_MARGIN_S
from services.uploader.settings import UploaderSettings
from services.uploader.topics import TopicPlan
from shared.kafka import KafkaSettings
from tests.harness import manifests
from tests.harness.commands import Commands
from tests.harness.deployments import (
    Objects,
    Source,
    deployed,
    loaded,
    needs_kustomize,
    only_built,
    ours,
    secrets,
    settings_of,
)
from tests.harness.manifests import Json, named, of_kind, workload, workloads
from tests.harness.processes import Processes

MIB = 1024 * 1024
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE"}
"""Of the AWS SDK, and no settings of ours."""


# -- the settings


@deployed
def test_every_variable_is_a_setting_and_what_has_no_default_is_set(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each variable of each pod is read by its process, and its process starts with them."""
    objects = source()
    for one in ours(objects):
        # The topics' Job takes the uploaders' ConfigMap as it is, and reads the KAFKA_* of it.
        kind = UploaderSettings if settings_of(one) is KafkaSettings else settings_of(one)
        known = {name.upper() for name in kind.model_fields} | (set() if kind is IngestSettings else AWS)
        assert manifests.environment(objects, one, secrets()).keys() <= known, one.name
        loaded(objects, one, monkeypatch)


@needs_kustomize
def test_a_variable_that_nobody_reads_and_a_missing_bucket_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: both are what it is for."""
    objects = [json.loads(json.dumps(one)) for one in manifests.built("production")]
    settings = named(objects, "ConfigMap", "spillway-uploader")["data"]
    settings["S3_BUKET"] = settings.pop("S3_BUCKET")

    def bad() -> Objects:
        return objects

    with pytest.raises(AssertionError, match="S3_BUKET"):
        test_every_variable_is_a_setting_and_what_has_no_default_is_set(bad, monkeypatch)
    with pytest.raises(ValueError, match="s3_bucket"):
        loaded(objects, workload(objects, "spillway-uploader"), monkeypatch)


@deployed
def test_the_commands_are_commands(source: Source) -> None:
    """`args` parse, and each Deployment runs what its name says."""
    objects = source()
    assert parse(workload(objects, "spillway-uploader").container["args"]).command == "run"
    assert ingest_parser().parse_args(workload(objects, "spillway-ingest").container.get("args", [])).command is None
    for one in ours(objects):
        if one.name == "spillway-topics":
            assert parse(one.container["args"]).command == "topics"
        assert "command" not in one.container  # the image's entry point stays


@only_built
def test_production_and_jobs_have_an_image_with_a_fixed_tag(source: Source) -> None:
    """No `latest`: a roll-back would bring back nothing."""
    for one in workloads(source()):
        name, _, tag = one.container["image"].rpartition(":")
        assert name, one.name
        assert tag not in ("", "latest"), one.name


@pytest.mark.parametrize(
    ("variable", "value", "final"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1", False),  # nobody there yet: dev's broker starts beside the Job
        ("KAFKA_MIN_INSYNC", "none", True),
    ],
)
def test_the_topics_job_tries_again_until_kafka_is_there(
    processes: Processes, variable: str, value: str, final: bool
) -> None:
    """What passes by itself is tried again, for half an hour and longer; a bad setting fails the Job at once."""
    job = workload(manifests.written("dev"), "spillway-topics")
    ran = Commands(processes, {variable: value}).run(*job.container["args"])
    fails = [rule["onExitCodes"]["values"] for rule in job.spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert ran.code != 0
    assert (ran.code in fails[0]) is final, ran
    waits_s = [min(10 * 2**tried, 360) for tried in range(job.spec["backoffLimit"])]  # 10, 20, … 320, 360, 360, …
    assert sum(waits_s) >= 30 * 60


# -- the numbers


@deployed
def test_the_grace_periods_cover_the_drains(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL comes only after the process has ended by itself (docs/operations/rolling-restart.md has the sum).

    ingest:   10 (INGEST_DRAIN_DELAY_S) + 10 (HTTP_DEADLINE_S) + 5 (answers are taken) = 25 < 40
    uploader: 5 (DRAIN_TIMEOUT_S) + 35 (commits, both clients, then it ends itself)    = 40 < 60
    """
    objects = source()
    one = workload(objects, "spillway-ingest")
    ingest = loaded(objects, one, monkeypatch)
    assert isinstance(ingest, IngestSettings)
    sleep_s = one.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    needed_s = sleep_s + ingest.ingest_drain_delay_s + ingest.http_deadline_s + FLUSH_S
    assert one.pod["terminationGracePeriodSeconds"] >= needed_s + 5
    two = workload(objects, "spillway-uploader")
    uploader = loaded(objects, two, monkeypatch)
    assert isinstance(uploader, UploaderSettings)
    assert two.pod["terminationGracePeriodSeconds"] >= uploader.drain_timeout_s + END_MARGIN_S + 10
    assert "lifecycle" not in two.container


@deployed
def test_ingest_serves_on_longer_than_its_readiness_takes_to_fail(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer that asks /readyz hears of the drain while connections are still taken."""
    objects = source()
    one = workload(objects, "spillway-ingest")
    ingest = loaded(objects, one, monkeypatch)
    assert isinstance(ingest, IngestSettings)
    probe = one.container["readinessProbe"]
    assert ingest.ingest_drain_delay_s > probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]


@deployed
def test_there_are_never_more_uploaders_than_partitions(source: Source) -> None:
    """The maximum of whoever scales, the topic, and the indexes of a replay are one number. No step doubles a group."""
    objects = source()
    partitions = TopicPlan().partitions
    job = [one for one in workloads(objects) if one.name == "spillway-topics"]
    topics = of_kind(objects, "KafkaTopic")
    assert job or topics
    assert [parse(one.container["args"]).partitions for one in job] == [partitions] * len(job)
    assert {topic["spec"]["partitions"] for topic in topics} <= {partitions}
    assert workload(objects, "spillway-uploader").spec["strategy"]["rollingUpdate"] == {
        "maxSurge": 0,
        "maxUnavailable": 1,
    }
    deployment = named(objects, "Deployment", "spillway-uploader")["spec"]
    scalers = _scalers(objects, "spillway-uploader")
    assert len(scalers) + ("replicas" in deployment) == 1  # one owner of the number
    assert deployment.get("replicas", 0) <= partitions
    for scaler in scalers:
        spec = scaler["spec"]
        behavior = spec.get("behavior") or spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert spec.get("maxReplicas", spec.get("maxReplicaCount")) == partitions
        assert spec.get("minReplicas", spec.get("minReplicaCount")) >= 2
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 600
        assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 600}]


def _scalers(objects: Objects, name: str) -> list[Json]:
    return [
        one
        for one in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
        if one["spec"]["scaleTargetRef"]["name"] == name
    ]


@deployed
def test_the_memory_limits_hold_what_was_measured(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/operations/ingest-memory.md, its formula for strangers; docs/benchmarks, 213 MiB with 64 of buffer.

    ingest:   64 + 64 + 48 + 4096 connections of (16 + 2 * 32) KiB = 496 MiB <= 512
    uploader: 85 + 2.5 * 64 = 245 MiB <= 512
    """
    objects = source()
    one, two = workload(objects, "spillway-ingest"), workload(objects, "spillway-uploader")
    ingest, uploader = loaded(objects, one, monkeypatch), loaded(objects, two, monkeypatch)
    assert isinstance(ingest, IngestSettings)
    assert isinstance(uploader, UploaderSettings)
    connection_bytes = 16 * 1024 + 2 * ingest.max_head_bytes
    needed = 112 * MIB + ingest.max_in_flight_bytes + ingest.max_connections * connection_bytes
    needed = needed * ingest.ingest_workers + (64 * MIB if ingest.ingest_workers > 1 else 0)
    assert manifests.quantity_bytes(one.container["resources"]["limits"]["memory"]) >= needed
    needed = 85 * MIB + round(2.5 * uploader.max_buffer_bytes)
    assert manifests.quantity_bytes(two.container["resources"]["limits"]["memory"]) >= needed
