"""The HTTP side of the pipeline that a competent team writes in a day: FastAPI, a pydantic model, `send_and_wait`.

A peer of the benchmark, and written as one would without measuring: every payload is a send of its own, all of a
collection's at once, and 200 comes when all of them are acknowledged.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, Request
from pydantic import BaseModel
from pydantic_core import to_json


class Collection(BaseModel):
    """What clients post."""

    version: str
    token: str
    data: list[dict[str, Any]]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One producer for the life of the application."""
    async with AIOKafkaProducer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP"], acks="all") as producer:
        app.state.producer = producer
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/livez")
async def livez() -> None:
    """Answers while the loop turns."""


@app.post("/v1/collections")
async def collect(collection: Collection, request: Request) -> dict[str, int]:
    """Writes every payload to Kafka, then answers."""
    producer: AIOKafkaProducer = request.app.state.producer
    topic = os.environ["KAFKA_TOPIC"]
    await asyncio.gather(*(producer.send_and_wait(topic, to_json(payload)) for payload in collection.data))
    return {"accepted": len(collection.data)}
