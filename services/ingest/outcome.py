"""What an error of a produce says about the log: nothing written, or nobody knows.

Holds only because the producer tries each batch exactly once (`kafka.once_only`): then the one error is the whole
story. An error that is not in the tables counts as unknown: a 503 promises that nothing was written, a doubt is a 504.
"""

from enum import Enum

from aiokafka import errors

_NOT_NOW = (
    # Never sent: there was no connection, no leader, or no room.
    errors.NodeNotReadyError,
    errors.StaleMetadata,
    errors.KafkaTimeoutError,
    # Refused by the broker before it appended anything.
    errors.LeaderNotAvailableError,
    errors.BrokerNotAvailableError,
    errors.ReplicaNotAvailableError,
    errors.UnknownTopicOrPartitionError,
)
# A leader that loses its office while it waits for the other replicas answers this too, with the batch in its log, and
# perhaps in theirs (Kafka's DelayedProduce, "case B.1").
_MOVED = (errors.NotLeaderForPartitionError,)
_REFUSED = (
    errors.NotEnoughReplicasError,  # before the append; ...AfterAppendError is another class, and unknown
    errors.TopicAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.InvalidTopicError,
    errors.InvalidRequiredAcksError,
    errors.PolicyViolationError,
    errors.UnsupportedForMessageFormatError,
    errors.CorruptRecordException,
    errors.InvalidTimestampError,
)
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)


class Verdict(Enum):
    """What to do with the batch."""

    NOT_NOW = "not_now"  # nothing written, and it may pass by itself: try again until the deadline
    MOVED = "moved"  # may be in the log; trying again writes the same ids, and may end the doubt
    REFUSED = "refused"  # nothing written, and trying again would not help: answer now
    TOO_LARGE = "too_large"  # nothing written: cut the batch
    UNKNOWN = "unknown"  # may be in the log


def judge(error: Exception) -> Verdict:
    """The verdict on the one try that ended in `error`."""
    if isinstance(error, _TOO_LARGE):
        return Verdict.TOO_LARGE
    if isinstance(error, _NOT_NOW):
        return Verdict.NOT_NOW
    if isinstance(error, _MOVED):
        return Verdict.MOVED
    if isinstance(error, _REFUSED):
        return Verdict.REFUSED
    return Verdict.UNKNOWN
