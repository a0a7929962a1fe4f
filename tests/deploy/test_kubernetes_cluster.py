"""The manifests of deploy/kubernetes on an API server: what it takes, what becomes of it, rolled, scaled and drained.

Runs only where SPILLWAY_TEST_KUBECONFIG names a kubeconfig (docs/kubernetes.md), in namespaces of its own, which it
deletes. It drains one node of nothing but its own uploaders, and leaves it as it was.
"""

import json
import secrets
from collections.abc import Iterator

import pytest

from tests.harness import kubectl, manifests
from tests.harness.kubectl import Kubectl, ready
from tests.harness.manifests import Json, named, of_kind, workloads
from tests.harness.waiting import until

pytestmark = [
    pytest.mark.skipif(kubectl.missing() is not None, reason=str(kubectl.missing())),
    pytest.mark.timeout(600),
]
DEADLINE_S = 240
MARK = "spillway/test"
UPLOADERS = "app.kubernetes.io/component=uploader"
UPLOADER = "deployment/spillway-uploader"


def _space() -> Kubectl:
    return Kubectl(f"spillway-test-{secrets.token_hex(4)}")


def _built(cluster: Kubectl, overlay: str, components: tuple[str, ...] = ()) -> tuple[Json, ...]:
    """In the cluster's namespace, and marked: a drain takes what has the mark, and nothing else."""
    mark = (MARK, cluster.namespace)
    return manifests.built(overlay, components, namespace=cluster.namespace, label=mark)


@pytest.fixture(scope="module")
def empty() -> Iterator[Kubectl]:
    """A namespace with the ServiceAccounts, which pods are refused without, and nothing else."""
    cluster = _space()
    try:
        objects = _built(cluster, "production")
        cluster.apply(objects=of_kind(objects, "Namespace"))
        cluster.apply(objects=of_kind(objects, "ServiceAccount"))
        yield cluster
    finally:
        cluster("delete", "namespace", cluster.namespace, "--ignore-not-found", "--wait")


@pytest.fixture(scope="module")
def dev() -> Iterator[Kubectl]:
    """The overlay `dev`, running. Its Namespace comes with it."""
    cluster = _space()
    try:
        objects = _built(cluster, "dev")
        cluster.apply(objects=of_kind(objects, "Namespace"))
        cluster.apply(objects=objects)
        for one in workloads(objects):
            if one.kind != "Job":
                cluster("rollout", "status", f"{one.kind}/{one.name}", f"--timeout={DEADLINE_S}s")
        yield cluster
    finally:
        cluster("delete", "namespace", cluster.namespace, "--ignore-not-found", "--wait")


@pytest.fixture(scope="module")
def kinds(empty: Kubectl) -> set[str]:
    """What the server knows."""
    lines = empty("api-resources", "--no-headers").splitlines()
    return {line.split()[-1] for line in lines}


def _number(cluster: Kubectl, count: int) -> list[Json]:
    """Wait until there are so many uploaders, all ready, and the Deployment counts them as available."""

    def settled() -> list[Json]:
        pods = cluster.pods(UPLOADERS)
        status = cluster.get(UPLOADER)["status"]
        well = len(pods) == count and all(map(ready, pods)) and status.get("availableReplicas") == count
        return pods if well else []

    return until(settled, f"{count} uploaders", deadline_s=DEADLINE_S, every_s=0.5)


# -- what the server takes


@pytest.mark.parametrize(
    ("overlay", "components"),
    manifests.combinations(),
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_the_server_takes_every_combination(
    empty: Kubectl, kinds: set[str], overlay: str, components: tuple[str, ...]
) -> None:
    """No field that it does not know, and no warning. Pods are tried one by one: Pod Security refuses none before it
    is made.
    """
    objects = _built(empty, overlay, components)
    unknown = {one["kind"] for one in objects} - kinds
    if unknown:
        pytest.skip(f"this cluster has no {', '.join(sorted(unknown))}")
    empty.apply("--dry-run=server", objects=objects)
    for one in workloads(objects):
        spec = {"restartPolicy": "Always", **one.pod}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**one.template["metadata"], "name": "try"}, "spec": spec}
        empty("create", "--dry-run=server", "--validate=strict", "-f", "-", objects=[pod])


def test_a_misspelt_field_and_a_pod_that_may_become_root_are_refused(empty: Kubectl) -> None:
    """The check above can fail: both are what it is for."""
    deployment = json.loads(json.dumps(named(_built(empty, "production"), "Deployment", "spillway-ingest")))
    pod = deployment["spec"]["template"]
    pod["spec"]["terminationGracePeriodSecond"] = pod["spec"].pop("terminationGracePeriodSeconds")
    with pytest.raises(AssertionError, match="terminationGracePeriodSecond"):
        empty.apply("--dry-run=server", objects=[deployment])
    pod["spec"]["terminationGracePeriodSeconds"] = pod["spec"].pop("terminationGracePeriodSecond")
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(AssertionError, match="PodSecurity"):
        empty.apply("--dry-run=server", objects=[deployment])


# -- what becomes of it


def test_everything_runs_and_the_topics_job_is_let_in(dev: Kubectl) -> None:
    """As many pods as were asked for; the fixture has waited for them."""
    pods = dev.pods(f"{MARK}={dev.namespace},app.kubernetes.io/component!=topics")
    names = [pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods if ready(pod)]
    assert sorted(names) == ["broker", "ingest", "s3", "uploader", "uploader"]
    _made_a_pod(dev, "spillway-topics")


def test_the_operators_jobs_get_their_pods(dev: Kubectl) -> None:
    """Beside the deployment whose settings they take; from the CronJob too. What they then do is no matter of this."""
    objects = _built(dev, "dev/jobs")
    dev("create", "--validate=strict", "-f", "-", objects=objects)
    dev("create", "job", "--from=cronjob/verify-yesterday", "verify-now")
    for job in [*(one["metadata"]["name"] for one in of_kind(objects, "Job")), "verify-now"]:
        _made_a_pod(dev, job)


def _made_a_pod(cluster: Kubectl, job: str) -> None:
    """A Job whose pod is refused has none, and an event."""
    until(
        lambda: cluster.get("pods", f"--selector=batch.kubernetes.io/job-name={job}")["items"],
        f"a pod of {job}",
        deadline_s=DEADLINE_S,
    )


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("spillway-ingest", 1, 2),  # of 1: one more, none less
        ("spillway-uploader", 1, 2),  # of 2: one less, none more, since each member more is a rebalance more
    ],
)
def test_a_roll_out_replaces_one_after_the_other(dev: Kubectl, name: str, least: int, most: int) -> None:
    """At every look at least so many are available and at most so many are there; in the end each is another pod."""
    selector = f"app.kubernetes.io/name={name},pod-template-hash"
    before = {pod["metadata"]["uid"] for pod in dev.pods(selector)}
    dev("rollout", "restart", f"deployment/{name}")
    wanted = dev.get(f"deployment/{name}")

    def over() -> bool:
        now = dev.get(f"deployment/{name}")
        status = now["status"]
        assert status.get("availableReplicas", 0) >= least
        assert status["replicas"] <= most
        return bool(
            status["observedGeneration"] >= wanted["metadata"]["generation"]
            and status.get("updatedReplicas") == status["replicas"] == now["spec"]["replicas"]
            and status.get("availableReplicas") == status["replicas"]
        )

    until(over, f"the roll-out of {name}", deadline_s=DEADLINE_S, every_s=0.1)
    assert not before & {pod["metadata"]["uid"] for pod in dev.pods(selector)}


def test_the_uploaders_are_scaled_up_and_down(dev: Kubectl) -> None:
    """1, 6, 2; and the budget counts them: one of them may be away, however many there are."""
    for count in (1, 6, 2):
        dev("scale", UPLOADER, f"--replicas={count}")
        _number(dev, count)

        def budget(count: int = count) -> bool:
            status = dev.get("pdb/spillway-uploader")["status"]
            return (status["expectedPods"], status["disruptionsAllowed"]) == (count, 1)

        until(budget, f"a budget over {count} uploaders", deadline_s=DEADLINE_S)


def test_no_second_uploader_is_evicted_before_the_first_is_replaced(dev: Kubectl) -> None:
    """A quota of no more pods keeps the first from being replaced; then the budget refuses the next, until it is."""
    dev("scale", UPLOADER, "--replicas=3")
    first, second, _ = (pod["metadata"]["name"] for pod in _number(dev, 3))
    dev("create", "quota", "nothing-new", "--hard=pods=0")
    try:
        until(lambda: dev.get("quota/nothing-new")["status"].get("hard"), "the quota in force", deadline_s=DEADLINE_S)
        assert dev.evict(first) == ""
        assert "disruption budget" in dev.evict(second)
        assert second in {pod["metadata"]["name"] for pod in dev.pods(UPLOADERS)}
    finally:
        dev("delete", "quota", "nothing-new")
    _number(dev, 3)
    assert dev.evict(second) == ""
    _number(dev, 3)


def test_a_node_is_drained_of_its_uploaders(dev: Kubectl) -> None:
    """They are on other nodes then, and as many as before. Nothing but these uploaders is evicted."""
    if dev.tried("auth", "can-i", "patch", "nodes", "--all-namespaces").returncode:
        pytest.skip("this user may not cordon a node")
    nodes = dev.get("nodes")["items"]
    free = [node["metadata"]["name"] for node in nodes if not node["spec"].get("unschedulable")]
    if len(free) < 2:
        pytest.skip("one node alone has nowhere to send its pods")
    dev("scale", UPLOADER, "--replicas=3")
    node = _number(dev, 3)[0]["spec"]["nodeName"]
    own = f"--pod-selector={MARK}={dev.namespace},{UPLOADERS}"
    try:
        dev("drain", node, own, "--ignore-daemonsets", f"--timeout={DEADLINE_S}s")
        assert node not in {pod["spec"]["nodeName"] for pod in _number(dev, 3)}
    finally:
        dev("uncordon", node)
