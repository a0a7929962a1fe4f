"""What an error of Kafka says about the log: 503 is a promise, so it needs certainty."""

import inspect

import pytest
from aiokafka import errors

from services.ingest.outcome import Verdict, judge


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (errors.NodeNotReadyError(), Verdict.NOT_NOW),
        (errors.NotLeaderForPartitionError(), Verdict.MOVED),  # it may have appended while it still was
        (errors.UnknownTopicOrPartitionError(), Verdict.NOT_NOW),
        (errors.NotEnoughReplicasError(), Verdict.REFUSED),
        (errors.TopicAuthorizationFailedError(), Verdict.REFUSED),
        (errors.MessageSizeTooLargeError(), Verdict.TOO_LARGE),
        (errors.RecordListTooLargeError(), Verdict.TOO_LARGE),
        (errors.NotEnoughReplicasAfterAppendError(), Verdict.UNKNOWN),  # it stands in the leader's log
        (errors.RequestTimedOutError(), Verdict.UNKNOWN),
        (errors.KafkaConnectionError(), Verdict.UNKNOWN),  # lost while the request was out
        (errors.KafkaStorageError(), Verdict.UNKNOWN),
        (errors.ProducerClosed(), Verdict.UNKNOWN),
        (TimeoutError(), Verdict.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__,
)
def test_verdicts(error: Exception, verdict: Verdict) -> None:
    """Nothing counts as not written unless it was never sent or was refused before the append."""
    assert judge(error) is verdict


def test_an_error_that_we_do_not_know_is_a_doubt() -> None:
    """Every other class of the client, today's and tomorrow's, is unknown."""
    certain = {Verdict.NOT_NOW, Verdict.REFUSED, Verdict.TOO_LARGE}
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.KafkaError)]
    decided = {kind.__name__ for kind in classes if kind.__module__ == errors.__name__ and judge_class(kind) in certain}
    assert len(decided) == 18
    assert judge(type("NewError", (errors.KafkaError,), {})()) is Verdict.UNKNOWN


def judge_class(kind: type[Exception]) -> Verdict:
    return judge(kind.__new__(kind))
