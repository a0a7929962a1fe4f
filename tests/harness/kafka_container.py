"""The shared broker of the tests where a Docker engine answers: the image of docker-compose.yml, by testcontainers.

Owns one container, which goes with the test run also where that is killed (the package's own reaper). Its settings are
those of the embedded broker (deploy/local/kafka.py), so that a test means the same on both.
"""

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from tests.harness.processes import free_port

IMAGE = "apache/kafka:4.3.1"
_START_DEADLINE_S = 100  # on two busy cores; below the tests' own limit, so that its log is seen
_INSIDE = 19_092  # other ports are for the broker itself: clients come by the one that is published
_SETTINGS = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@127.0.0.1:9093",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "INSIDE",
    "KAFKA_LISTENERS": f"PLAINTEXT://:9092,INSIDE://127.0.0.1:{_INSIDE},CONTROLLER://127.0.0.1:9093",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_NUM_PARTITIONS": "4",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_HEAP_OPTS": "-Xms64m -Xmx384m",
}


class KafkaContainer:
    """A running broker."""

    def __init__(self, container: DockerContainer, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._container = container

    def stop(self) -> None:
        """End it; what it has stored is gone."""
        self._container.stop()


def kafka_container() -> KafkaContainer:
    """Start a broker and wait until it serves.

    Raises:
        TimeoutError: it does not in time.

    """
    container = DockerContainer(IMAGE)
    host, port = container.get_docker_client().host(), free_port()
    container.with_envs(
        **_SETTINGS, KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://{host}:{port},INSIDE://127.0.0.1:{_INSIDE}"
    )
    container.with_bind_ports(9092, port)
    container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(_START_DEADLINE_S))
    container.start()
    return KafkaContainer(container, f"{host}:{port}")
