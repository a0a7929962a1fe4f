"""Which partitions are asked for more records: back-pressure, which is only not asking (DESIGN §7 *Flow*)."""

from collections.abc import Collection

from services.uploader.partition import Partition
from services.uploader.settings import UploaderSettings


def appetite(partitions: Collection[Partition], settings: UploaderSettings) -> tuple[list[Partition], int]:
    """The partitions to ask for, and how many records may come so that none exceeds MAX_QUEUE.

    Half of MAX_BUFFER_BYTES is for whoever comes first, the other half is kept in equal shares: a partition with a
    backlog of large records uses the memory that is free, and never the share of another.
    """
    free_for_all = sum(p.window.pending_bytes for p in partitions) < settings.max_buffer_bytes // 2
    # At least a byte, so that a partition with nothing in memory is always asked for, however small the budget.
    share_bytes = max(1, settings.max_buffer_bytes // 2 // max(1, len(partitions)))
    hungry = [
        partition
        for partition in partitions
        if partition.positioned
        and len(partition.window) <= settings.max_queue // 2
        and (free_for_all or partition.window.pending_bytes < share_bytes)
    ]
    fullest = max((len(partition.window) for partition in hungry), default=0)
    return hungry, settings.max_queue - fullest
