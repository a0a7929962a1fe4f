"""The command line of the uploader: its arguments as values. Starts nothing; `__main__` does."""

import argparse
from collections.abc import Sequence

from services.uploader.jobs.lag import command as lag
from services.uploader.jobs.letters import command as letters_command
from services.uploader.jobs.redrive import command as redrive_command
from services.uploader.jobs.replay import request as replay_request
from services.uploader.jobs.verify import command as verify_command
from services.uploader.settings import UploaderSettings
from services.uploader.topics import TopicPlan
from shared.kafka import KafkaSettings
from shared.settings import describe


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; `command` is the command's name.

    Raises:
        SystemExit: on `--help`, or with 2 on bad arguments.

    """
    parser = argparse.ArgumentParser(
        prog="spillway-uploader", description="Store every record of a Kafka topic as one object in S3."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "run",
        help="consume and store, until SIGTERM",
        description="Consume the topic as a member of the group and store every record, until SIGTERM.",
        epilog="environment variables:\n" + describe(UploaderSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay_request.add_parser(commands)
    verify_command.add_parser(commands)
    redrive_command.add_parser(commands)
    letters_command.add_parser(commands)
    lag.add_parser(commands)
    topics = commands.add_parser(
        "topics",
        help="make the two topics, or check them",
        description="Make KAFKA_TOPIC and KAFKA_DEAD_TOPIC, or compare those that exist with the contract.",
        epilog="environment variables:\n" + describe(KafkaSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plan = TopicPlan()
    topics.add_argument("--partitions", type=_positive, default=plan.partitions, help="(default %(default)s)")
    topics.add_argument(
        "--replication-factor",
        type=_positive,
        default=None,
        help="(default KAFKA_MIN_INSYNC + 1; with KAFKA_MIN_INSYNC=1, a one-broker stack, 1)",
    )
    topics.add_argument(
        "--retention-hours",
        type=_positive,
        default=plan.retention_ms // 3_600_000,
        help="how long an S3 outage may last (default %(default)s)",
    )
    topics.add_argument(
        "--max-message-bytes",
        type=_positive,
        default=plan.message_bytes_max,
        help="largest record batch of KAFKA_TOPIC (default %(default)s)",
    )
    return parser.parse_args(argv)


def topic_plan(arguments: argparse.Namespace, min_insync: int) -> TopicPlan:
    """The plan that the arguments of `topics` ask for."""
    replication = arguments.replication_factor or (1 if min_insync == 1 else min_insync + 1)
    return TopicPlan(
        partitions=arguments.partitions,
        replication_factor=replication,
        retention_ms=arguments.retention_hours * 3_600_000,
        message_bytes_max=arguments.max_message_bytes,
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
