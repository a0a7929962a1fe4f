"""The clients that a job has beside its readers: Kafka's for questions, S3's for objects. Opened and closed as one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from services.uploader.jobs.topic_log import log_client
from services.uploader.topic_view import TopicView
from shared.kafka import KafkaSettings

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0


class KafkaAwayError(Exception):
    """Kafka does not answer; the message names the variable."""


@contextlib.asynccontextmanager
async def kafka(
    settings: KafkaSettings, group_id: str | None = None
) -> AsyncIterator[tuple[AIOKafkaConsumer, TopicView]]:
    """A started consumer that reads nothing yet, and a started view of KAFKA_TOPIC, which is an admin client too.

    Raises:
        KafkaAwayError: no broker answers in time, now or later in this context.

    """
    client, view = log_client(settings, group_id), TopicView(settings)
    try:
        await asyncio.wait_for(client.start(), START_TIMEOUT_S)
        await asyncio.wait_for(view.start(), START_TIMEOUT_S)
        yield client, view
    except (KafkaError, TimeoutError, OSError) as error:
        cause = str(error) or type(error).__name__
        raise KafkaAwayError(f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers}: {cause}") from error
    finally:
        for close in (client.stop, view.close):
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                await asyncio.wait_for(close(), STOP_TIMEOUT_S)
