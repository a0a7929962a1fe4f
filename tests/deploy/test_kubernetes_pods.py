"""The pods of deploy/kubernetes: what each may do and asks for, what selects it, and who may talk to it."""

import re
from pathlib import Path

import pytest

from services.ingest.settings import IngestSettings
from services.uploader.settings import UploaderSettings
from tests.harness import manifests
from tests.harness.deployments import (
    Objects,
    Source,
    deployed,
    everywhere,
    job_templates,
    loaded,
    ours,
    secrets,
)
from tests.harness.manifests import named, of_kind, workload, workloads
from tests.harness.network_policies import (
    CONTROLLER,
    INTERNET,
    NODE_METADATA,
    PROMETHEUS,
    STRANGER,
    Peer,
    allowed,
    selects,
)

# -- each pod


@everywhere
def test_each_container_is_restricted_and_bounded(source: Source) -> None:
    """What Pod Security `restricted` wants, a root file system that is only read, and a bound on all that it takes of a
    node; what its volumes may hold is within it. No Service of the namespace becomes a variable of its environment.
    """
    for one in workloads(source()):
        pod, container = one.pod, one.container
        assert pod["automountServiceAccountToken"] is False, one.name
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == (10001 if one.ours or one.name == "s3" else 1000)
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        expected = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        if one.name != "kafka":
            expected["readOnlyRootFilesystem"] = True
        assert container["securityContext"] == expected, one.name
        bounded = {"cpu", "memory", "ephemeral-storage"}
        assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys() == bounded, one.name
        volumes = sum(
            manifests.quantity_bytes(volume["emptyDir"]["sizeLimit"])
            for volume in pod.get("volumes", [])
            if "emptyDir" in volume
        )
        assert manifests.quantity_bytes(container["resources"]["limits"]["ephemeral-storage"]) > volumes, one.name
        assert pod["enableServiceLinks"] is False, one.name
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
        assert all({"emptyDir", "secret"} & volume.keys() for volume in pod.get("volumes", [])), one.name


@deployed
def test_the_probes_ask_the_ops_port(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Liveness asks for the loop alone and is patient; readiness is another page; a start has time. The ports are
    those that the process listens on.
    """
    objects = source()
    for name in ("spillway-ingest", "spillway-uploader"):
        one = workload(objects, name)
        settings = loaded(objects, one, monkeypatch)
        pages = {key: one.container[key]["httpGet"] for key in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert pages == {
            "startupProbe": {"path": "/livez", "port": "ops"},
            "livenessProbe": {"path": "/livez", "port": "ops"},
            "readinessProbe": {"path": "/readyz", "port": "ops"},
        }
        liveness, startup = one.container["livenessProbe"], one.container["startupProbe"]
        assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 30
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 60
        if isinstance(settings, IngestSettings):
            assert (one.port("http"), one.port("ops")) == (settings.ingest_port, settings.ingest_ops_port)
        else:
            assert isinstance(settings, UploaderSettings)
            assert one.port("ops") == settings.uploader_ops_port


@everywhere
def test_nothing_refers_to_what_is_not_there(source: Source) -> None:
    """ConfigMaps and ServiceAccounts are in the build; Secrets are too, or on the page, or made by Strimzi."""
    objects = source()
    there = {(one["kind"], one["metadata"]["name"]) for one in objects}
    there |= {("Secret", name) for name in secrets()}
    there |= {("Secret", one["metadata"]["name"]) for one in of_kind(objects, "KafkaUser")}
    if not of_kind(objects, "Namespace"):  # the jobs alone: beside a deployment
        there |= {("ConfigMap", "spillway-uploader"), ("ServiceAccount", "spillway-uploader")}
        there |= {("Secret", "spillway-uploader-kafka")}
    for one in workloads(objects):
        missing = set(manifests.references(one)) - there - {("ServiceAccount", "default")}
        assert not missing, one.name
        assert one.pod.get("serviceAccountName") or not one.ours
        mounts = {mount["name"] for mount in one.container.get("volumeMounts", [])}
        assert mounts == {volume["name"] for volume in one.pod.get("volumes", [])}, one.name
    for account in of_kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@deployed
def test_files_that_settings_name_are_mounted_and_only_read(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens file and the certificates; a tokens file is what production has."""
    objects = source()
    for one in ours(objects):
        values = loaded(objects, one, monkeypatch).model_dump()
        mounts = {Path(m["mountPath"]): m for m in one.container.get("volumeMounts", [])}
        for name in ("ingest_tokens_file", "kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile"):
            if values.get(name):
                mount = mounts[Path(values[name]).parent]
                assert mount["readOnly"] is True
                assert "subPath" not in mount  # would never be updated
                (volume,) = (v["secret"] for v in one.pod["volumes"] if v["name"] == mount["name"])
                assert volume["defaultMode"] == 0o440
                items = [item["path"] for item in volume.get("items", [])]
                assert not items or Path(values[name]).name in items


@deployed
def test_no_secret_is_written_down(source: Source) -> None:
    """Secrets are named; the dev overlay's S3 server takes any credentials, and has the word `dev`."""
    objects = source()
    for secret in of_kind(objects, "Secret"):
        assert set(secret["data"].values()) == {"ZGV2"}  # base64 of dev
    for settings in of_kind(objects, "ConfigMap"):
        assert not [name for name in settings["data"] if re.search("PASSWORD|SECRET_ACCESS|USERNAME", name)]


# -- what selects what


@everywhere
def test_selectors_take_their_own_pods_and_no_others(source: Source) -> None:
    """A Deployment that took a job's pod would count it as its own, and a Service would send clients to it."""
    objects = source()
    pods = workloads(objects) + workloads(job_templates())
    for one in workloads(objects):
        if one.kind in ("Deployment", "StatefulSet"):
            assert {pod.name for pod in pods if selects(one.spec["selector"], pod.labels)} == {one.name}
    for service in of_kind(objects, "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        taken = [pod for pod in pods if selects(selector, pod.labels)]
        assert [pod.name for pod in taken] == [service["metadata"]["name"]]
        for port in service["spec"]["ports"]:
            assert taken[0].port(port["targetPort"]) == port["port"]
            assert port["targetPort"] != "ops"
    for budget in of_kind(objects, "PodDisruptionBudget"):
        taken = [pod for pod in pods if selects(budget["spec"]["selector"], pod.labels)]
        assert [pod.name for pod in taken] == [budget["metadata"]["name"]]
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    for one in ours(objects):
        for spread in one.pod.get("topologySpreadConstraints", []):
            assert selects(spread["labelSelector"], one.labels)


@deployed
def test_both_tiers_have_a_budget_and_are_spread(source: Source) -> None:
    """One node or one zone takes with it as few of a tier as can be."""
    objects = source()
    budgets = {one["metadata"]["name"] for one in of_kind(objects, "PodDisruptionBudget")}
    assert budgets == {"spillway-ingest", "spillway-uploader"}
    for name in budgets:
        spread = [one["topologyKey"] for one in workload(objects, name).pod["topologySpreadConstraints"]]
        assert spread == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        assert workload(objects, name).pod["enableServiceLinks"] is False


# -- who may talk to whom


@deployed
def test_nothing_is_open_that_is_not_needed(source: Source) -> None:
    """The operator's ports answer Prometheus alone, clients reach ingest's public port alone, and nobody leaves but for
    Kafka, S3 and names.
    """
    objects = source()
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in [
        policy["spec"] for policy in of_kind(objects, "NetworkPolicy")
    ]
    for one in ours(objects) + workloads(job_templates()):
        ports = {port["name"]: port["containerPort"] for port in one.container.get("ports", [])}
        for port in (8080, 8081, 8082):
            if port == ports.get("http"):  # who else may come here is the overlay's business
                assert allowed(objects, one, "Ingress", port, CONTROLLER)
                continue
            assert allowed(objects, one, "Ingress", port, PROMETHEUS) is (port == ports.get("ops"))
            for peer in (STRANGER, CONTROLLER, INTERNET):
                assert not allowed(objects, one, "Ingress", port, peer), (one.name, port)
        assert allowed(objects, one, "Egress", 53, Peer("kube-system", {}))
        assert not allowed(objects, one, "Egress", 53, STRANGER)
        for port in (22, 80, 8080, 6443):
            for peer in (STRANGER, INTERNET, NODE_METADATA):
                assert not allowed(objects, one, "Egress", port, peer), (one.name, port, peer)


@deployed
def test_each_reaches_its_kafka_and_its_bucket(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the ports that the settings name; ingest and the topics' Job have no business with S3."""
    objects = source()
    uploader = loaded(objects, workload(objects, "spillway-uploader"), monkeypatch)
    assert isinstance(uploader, UploaderSettings)
    bootstrap = uploader.kafka_bootstrap_servers.split(",")[0].rpartition(":")
    endpoint = uploader.s3_endpoint_url
    built = bool(of_kind(objects, "Secret", "KafkaTopic")) or _patched(objects)
    if not built:
        pytest.skip("the overlay's NetworkPolicy is a patch: only kustomize applies it")
    kafka = {
        "kafka": Peer(labels={"app.kubernetes.io/name": "kafka"}),
        "main-kafka-bootstrap.kafka.svc": Peer("kafka", {"strimzi.io/cluster": "main"}),
    }.get(bootstrap[0], Peer(address="10.0.0.0"))
    s3 = Peer(labels={"app.kubernetes.io/name": "s3"}) if endpoint else INTERNET
    s3_port = int(endpoint.rpartition(":")[2]) if endpoint else 443
    for one in ours(objects) + workloads(job_templates()):
        assert allowed(objects, one, "Egress", int(bootstrap[2]), kafka), one.name
        stores = one.name not in ("spillway-ingest", "spillway-topics")
        assert allowed(objects, one, "Egress", s3_port, s3) is stores, one.name
        # The dev overlay's own servers let them in, too.
        for server in [server for server in workloads(objects) if server.name in ("kafka", "s3")]:
            (port,) = server.container["ports"]
            comes = stores or server.name == "kafka"
            assert not comes or allowed(objects, server, "Ingress", port["containerPort"], Peer(labels=one.labels))


def _patched(objects: Objects) -> bool:
    return "to" in named(objects, "NetworkPolicy", "kafka")["spec"]["egress"][0]
