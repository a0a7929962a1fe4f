"""The components of deploy/kubernetes: Strimzi, rights to the bucket, Prometheus, Grafana; and the page of all."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from deploy.kubernetes.prometheus_rules import RULES, WRITTEN, prometheus_rules
from deploy.monitoring.dashboard import FILE as DASHBOARD
from services.uploader.__main__ import PROBE_KEY
from services.uploader.dead_letter import EXTRA_BYTES
from services.uploader.jobs.storing.state import group_of
from services.uploader.settings import UploaderSettings
from services.uploader.topics import TopicPlan
from shared.kafka import KafkaSettings
from tests.harness import manifests
from tests.harness.deployments import job_templates, needs_kustomize, ours
from tests.harness.manifests import KUBERNETES, component, named, of_kind, workload, workloads
from tests.harness.network_policies import NODE_METADATA, Peer, allowed, selects


def test_strimzis_topics_are_those_that_the_command_makes() -> None:
    """Names, partitions, copies, retention, sizes: `spillway-uploader topics` would find nothing that differs."""
    plan, settings = TopicPlan(), KafkaSettings.model_construct()
    expected = {
        name: {
            "partitions": plan.partitions,
            "replicas": plan.replication_factor,
            "config": {
                "message.timestamp.type": "LogAppendTime",
                "min.insync.replicas": settings.kafka_min_insync,
                "retention.ms": plan.retention_ms,
                "max.message.bytes": plan.message_bytes_max + extra,
            },
        }
        for name, extra in ((settings.kafka_topic, 0), (settings.kafka_dead_topic, EXTRA_BYTES))
    }
    topics = of_kind(component("strimzi"), "KafkaTopic")
    assert {topic["metadata"]["name"]: topic["spec"] for topic in topics} == expected
    assert plan.replication_factor == settings.kafka_min_insync + 1


def test_strimzis_users_may_do_the_least() -> None:
    """Ingest writes one topic; the uploaders read it, write and read dead letters, and commit in their groups."""
    rights = {
        user["metadata"]["name"]: {
            (acl["resource"]["type"], acl["resource"]["name"], acl["resource"]["patternType"]): set(acl["operations"])
            for acl in user["spec"]["authorization"]["acls"]
        }
        for user in of_kind(component("strimzi"), "KafkaUser")
    }
    group = UploaderSettings.model_fields["kafka_group_id"].default
    look = {"Describe", "DescribeConfigs"}
    assert rights == {
        "spillway-ingest-kafka": {("topic", "payloads", "literal"): {"Write"} | look},
        "spillway-uploader-kafka": {
            ("topic", "payloads", "literal"): {"Read"} | look,
            ("topic", "payloads.dead", "literal"): {"Read", "Write"} | look,
            ("group", group, "literal"): {"Read", "Describe"},
            ("group", group_of(group, ""), "prefix"): {"Read", "Describe"},
        },
    }
    assert not rights.keys() & {"spillway-ingest", "spillway-uploader"}  # Secrets of the environment have these names


@needs_kustomize
def test_a_strimzi_cluster_needs_no_password() -> None:
    """With strimzi nothing asks for the SASL users, and the topic operator makes the topics."""
    objects = manifests.built("production", ("strimzi",))
    asked = {name for one in workloads(objects) for kind, name in manifests.references(one) if kind == "Secret"}
    assert asked == {
        "spillway-tokens",
        "spillway-uploader",
        "main-cluster-ca-cert",
        "spillway-ingest-kafka",
        "spillway-uploader-kafka",
    }
    assert not of_kind(objects, "Job")


@needs_kustomize
def test_jobs_have_the_certificates_of_strimzi() -> None:
    """At the places that the ConfigMap names, in each Job and in the CronJob; what a job mounted itself stays."""
    env = manifests.environment_file(KUBERNETES / "components/strimzi/kafka.env")
    for one in workloads(manifests.built("production/jobs", ("strimzi/jobs",))):
        paths = {mount["mountPath"] for mount in one.container["volumeMounts"]}
        assert {str(Path(value).parent) for name, value in env.items() if name.endswith("FILE")} <= paths
        assert ("/report" in paths) is (one.name == "verify-1125")


@needs_kustomize
@pytest.mark.parametrize("overlay", ["dev/jobs", "production/jobs"])
def test_one_job_can_be_chosen(overlay: str) -> None:
    """`kubectl create -l spillway/job=…` takes exactly one, in the deployment's namespace and with its image."""
    objects = manifests.built(overlay)
    chosen = [one["metadata"]["labels"]["spillway/job"] for one in objects]
    assert sorted(chosen) == ["redrive", "replay", "replay-indexed", "verify", "verify-nightly"]
    assert {one["metadata"]["namespace"] for one in objects} == {"spillway"}
    image = workload(manifests.built(overlay.split("/", maxsplit=1)[0]), "spillway-uploader").container["image"]
    assert {one.container["image"] for one in workloads(objects)} == {image}
    page = (KUBERNETES / "jobs/README.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in chosen)


def _statements(name: str) -> dict[str, list[str]]:
    """Resources by action."""
    policy = json.loads((KUBERNETES / f"iam/{name}.json").read_text("utf-8"))
    return {
        one["Action"]: one["Resource"] if isinstance(one["Resource"], list) else [one["Resource"]]
        for one in policy["Statement"]
        if one["Effect"] == "Allow"
    }


def test_the_role_may_store_and_nothing_else() -> None:
    """The uploaders write; reading and listing are the jobs'. The bucket and folder are production's, the probe's key
    the one that a start writes.
    """
    bucket = manifests.environment_file(KUBERNETES / "overlays/production/uploader.env")["S3_BUCKET"]
    folder = UploaderSettings.model_fields["s3_folder"].default
    objects = f"arn:aws:s3:::{bucket}/{folder}/*"
    assert _statements("uploader") == {"s3:PutObject": [f"arn:aws:s3:::{bucket}/{PROBE_KEY}", objects]}
    assert _statements("jobs") == {"s3:GetObject": [objects], "s3:ListBucket": [f"arn:aws:s3:::{bucket}"]}


def test_the_roles_are_trusted_for_one_service_account() -> None:
    """And for none of another namespace."""
    text = (KUBERNETES / "iam/trust-irsa.json").read_text("utf-8")
    (statement,) = json.loads(text)["Statement"]
    subjects = [value for key, value in statement["Condition"]["StringEquals"].items() if key.endswith(":sub")]
    assert subjects == ["system:serviceaccount:spillway:spillway-uploader"]
    (statement,) = json.loads((KUBERNETES / "iam/trust-pod-identity.json").read_text("utf-8"))["Statement"]
    assert statement["Condition"]["StringEquals"] == {
        "aws:RequestTag/kubernetes-namespace": "spillway",
        "aws:RequestTag/kubernetes-service-account": "spillway-uploader",
    }


@needs_kustomize
def test_a_role_reaches_the_uploaders_and_its_agent_alone() -> None:
    """IRSA is an annotation of their ServiceAccount; Pod Identity needs the way to its agent, and no other address."""
    irsa = manifests.built("production", ("monitoring", "autoscaling-keda", "irsa"))
    annotated = [one["metadata"]["name"] for one in of_kind(irsa, "ServiceAccount") if "annotations" in one["metadata"]]
    assert annotated == ["spillway-uploader"]
    objects = manifests.built("production", ("monitoring", "autoscaling-keda", "pod-identity"))
    agent = Peer(address="169.254.170.23")
    reaching = {one.name for one in ours(objects) if allowed(objects, one, "Egress", 80, agent)}
    assert reaching == {"spillway-uploader"}
    assert not allowed(objects, workload(objects, "spillway-uploader"), "Egress", 80, NODE_METADATA)


def test_prometheus_scrapes_both_tiers_at_their_ops_ports() -> None:
    """By pod, since no Service has the port; jobs have none."""
    monitor = named(component("monitoring"), "PodMonitor", "spillway")["spec"]
    part = {"app.kubernetes.io/part-of": "spillway"}  # kustomize adds it to each template
    objects = [*manifests.written("production"), *job_templates()]
    scraped = [one for one in workloads(objects) if selects(monitor["selector"], one.labels | part)]
    assert {one.name for one in scraped} == {"spillway-ingest", "spillway-uploader"}
    assert [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]] == ["ops"]
    assert all(one.port("ops") for one in scraped)
    assert monitor["jobLabel"] == "app.kubernetes.io/name"  # the rules have `job="spillway-…"`


@pytest.mark.skipif(not RULES.is_dir(), reason="deploy/monitoring has no rules yet")
def test_the_operators_rules_are_those_that_promtool_tests() -> None:
    """`python -m deploy.kubernetes.prometheus_rules` writes them anew."""
    assert WRITTEN.read_text("utf-8") == prometheus_rules()
    groups = [one["spec"]["groups"] for one in yaml.safe_load_all(WRITTEN.read_text("utf-8"))]
    files = [yaml.safe_load(path.read_text("utf-8"))["groups"] for path in sorted(RULES.glob("*.yaml"))]
    assert groups == files


@needs_kustomize
def test_grafanas_sidecar_finds_the_dashboard_as_it_is() -> None:
    """The file itself, byte for byte, and under a name that stays: two ConfigMaps would be two dashboards of one uid.
    Small enough for a client-side apply, which repeats the object in an annotation of at most 256 KiB.
    """
    there = {one["metadata"]["name"] for one in of_kind(manifests.built("production", ("monitoring",)), "ConfigMap")}
    (made,) = (
        one
        for one in of_kind(manifests.built("production", ("monitoring", "grafana")), "ConfigMap")
        if one["metadata"]["name"] not in there
    )
    assert made["metadata"]["name"] == "spillway-dashboard"
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = made["data"].values()
    assert text == DASHBOARD.read_text("utf-8")
    assert len(json.dumps(made)) < 256 * 1024


# -- the page


def test_the_page_names_every_overlay_andcomponent() -> None:
    """And a combination of each, which is how each comes to be built above."""
    named_overlays = {overlay for overlay, _ in manifests.combinations()}
    named_components = {component for _, components in manifests.combinations() for component in components}
    for directory, names in (("overlays", named_overlays), ("components", named_components)):
        root = KUBERNETES / directory
        found = {str(path.parent.relative_to(root)) for path in root.rglob("kustomization.yaml")}
        assert {name for name in found if not name.endswith("release")} == names


@needs_kustomize
def test_the_kustomization_of_the_page_builds(tmp_path: Path) -> None:
    """What a reader copies gives their brokers, their bucket, their images and their role."""
    text = manifests.PAGE.read_text("utf-8")
    (example,) = (
        block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "overlays/production" in block
    )
    inside = os.path.relpath(KUBERNETES, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(example.replace("../spillway/deploy/kubernetes", inside), "utf-8")
    policies = KUBERNETES / "overlays/production/network-policies.yaml"
    (tmp_path / "network-policies.yaml").write_text(policies.read_text("utf-8"), "utf-8")
    role = (KUBERNETES / "components/irsa/service-account.yaml").read_text("utf-8")
    (tmp_path / "role.yaml").write_text(role.replace("111122223333", "444455556666"), "utf-8")
    objects = manifests.build(tmp_path)
    settings = named(objects, "ConfigMap", "spillway-uploader")["data"]
    assert settings["S3_BUCKET"] == "mine"
    assert settings["KAFKA_TOPIC"] == "payloads"  # merged, not replaced
    assert settings["KAFKA_BOOTSTRAP_SERVERS"] == "b-1.mine:9096"
    assert {one.container["image"] for one in ours(objects)} == {
        "registry.mine/spillway-ingest:0.1.0",
        "registry.mine/spillway-uploader:0.1.0",
    }
    account = named(objects, "ServiceAccount", "spillway-uploader")
    assert "444455556666" in account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]


@needs_kustomize
def test_base_enforces_restricted_pods_in_its_namespace() -> None:
    """And everything that has a namespace is in it."""
    for overlay, components in manifests.combinations():
        for one in manifests.built(overlay, components):
            if one["kind"] == "Namespace":
                labels = one["metadata"]["labels"]
                assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
                assert one["metadata"]["name"] == "spillway"
            else:
                assert one["metadata"]["namespace"] == "spillway", (overlay, components, one["kind"])
