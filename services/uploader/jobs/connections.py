"""The clients that a job has beside its readers: Kafka's for questions, S3's for objects. Opened and closed as one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from services.uploader.cancellation import cancelled_from_outside
from services.uploader.jobs.topic_log import START_TIMEOUT_S, close_client, log_client
from services.uploader.topic_view import TopicView
from shared.kafka import KafkaSettings, connection_options
from shared.kafka_trouble import explain, in_words


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
        options = connection_options(settings)
        async with in_words(options), asyncio.timeout(START_TIMEOUT_S):
            await client.start()
        async with in_words(options), asyncio.timeout(START_TIMEOUT_S):
            await view.start()
        yield client, view
    except (KafkaError, TimeoutError, OSError) as error:
        raise KafkaAwayError(f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers}: {explain(error)}") from error
    except asyncio.CancelledError:
        if cancelled_from_outside():
            raise
        raise KafkaAwayError(f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers}: the client ended") from None
    finally:
        for end in (client.stop, view.close):
            await close_client(end)
