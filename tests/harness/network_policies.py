"""Which pods a selector takes, and what the NetworkPolicies let through: Kubernetes' rules, as far as ours use them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.harness.manifests import Json, Workload, of_kind


def selects(selector: Json, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        inside = labels.get(expression["key"]) in expression["values"]
        if inside != {"In": True, "NotIn": False}[expression["operator"]]:
            return False
    return True


@dataclass(frozen=True)
class Peer:
    """The other end of a connection: a pod's labels in a namespace, or an address."""

    namespace: str = "spillway"
    labels: Mapping[str, str] | None = None
    address: str | None = None


PROMETHEUS = Peer("monitoring", {"app.kubernetes.io/name": "prometheus"})
CONTROLLER = Peer("ingress-nginx", {})
STRANGER = Peer("elsewhere", {})
INTERNET = Peer(address="192.0.2.1")
NODE_METADATA = Peer(address="169.254.169.254")


def allowed(objects: Sequence[Json], one: Workload, direction: str, port: int, peer: Peer) -> bool:
    """Whether the NetworkPolicies let `one` be reached from (`Ingress`), or reach (`Egress`), a peer at a port.

    An address is taken by the rules for all, and by an ipBlock that is written down for exactly it.
    """
    policies = [
        policy["spec"]
        for policy in of_kind(objects, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], one.labels) and direction in policy["spec"]["policyTypes"]
    ]
    if not policies:
        return True
    numbers = {entry["name"]: entry["containerPort"] for entry in one.container.get("ports", [])}
    key, side = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}[direction]
    return any(
        any(numbers.get(entry["port"], entry["port"]) == port for entry in rule["ports"])
        and (side not in rule or any(_is(peer, entry) for entry in rule[side]))
        for policy in policies
        for rule in policy.get(key, [])
    )


def _is(peer: Peer, entry: Json) -> bool:
    if "ipBlock" in entry:
        return peer.address is not None and entry["ipBlock"]["cidr"].split("/")[0] == peer.address
    if peer.address is not None:
        return False
    there = {"kubernetes.io/metadata.name": peer.namespace}
    inside = (
        selects(entry["namespaceSelector"], there) if "namespaceSelector" in entry else peer.namespace == "spillway"
    )
    return inside and ("podSelector" not in entry or selects(entry["podSelector"], peer.labels or {}))
