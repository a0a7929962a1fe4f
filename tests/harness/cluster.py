"""Three real brokers on the loopback address, each broker and controller at once, as one cluster.

Owns their processes. Topics on it have three replicas, of which two must be in sync, as in production.
"""

from collections.abc import Mapping
from pathlib import Path

from deploy.local.kafka import EmbeddedKafka, new_cluster_id
from deploy.local.ports import LOOPBACK
from tests.harness.processes import free_port

NODES = 3


class Cluster:
    """Start it, and stop it whatever happens; nodes may be stopped, killed and started one by one.

    `properties` go over those of every node.
    """

    def __init__(self, directory: Path, properties: Mapping[str, str] | None = None) -> None:
        ports = [free_port() for _ in range(NODES)]
        controllers = [free_port() for _ in range(NODES)]
        voters = ",".join(f"{node + 1}@{LOOPBACK}:{controllers[node]}" for node in range(NODES))
        cluster_id = new_cluster_id()
        self.nodes = [
            EmbeddedKafka(
                directory / f"node-{node + 1}",
                port=ports[node],
                cluster_id=cluster_id,
                properties={
                    "node.id": str(node + 1),
                    "controller.quorum.voters": voters,
                    "listeners": f"PLAINTEXT://{LOOPBACK}:{ports[node]},CONTROLLER://{LOOPBACK}:{controllers[node]}",
                    "offsets.topic.replication.factor": "3",
                    "default.replication.factor": "3",
                    "min.insync.replicas": "2",
                    "replica.lag.time.max.ms": "3000",  # how long a dead follower holds up acks=all
                    **(properties or {}),
                },
            )
            for node in range(NODES)
        ]

    @property
    def bootstrap_servers(self) -> str:
        """All three addresses."""
        return ",".join(node.bootstrap_servers for node in self.nodes)

    def node(self, node_id: int) -> EmbeddedKafka:
        """The broker with this id, from 1."""
        return self.nodes[node_id - 1]

    def start(self) -> None:
        """Start all that do not run, then wait for them: a majority makes the quorum."""
        missing = [node for node in self.nodes if not node.running]
        for node in missing:
            node.launch()
        for node in missing:
            node.wait_serving()

    def stop(self) -> None:
        """End all, without the ceremony of an orderly shutdown."""
        for node in self.nodes:
            node.kill_if_running()
