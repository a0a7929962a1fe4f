"""An S3 server on the loopback address: moto's, in a process of its own.

Objects live in that process's memory. They survive a freeze, not a stop or a kill: after a start the server is
empty, buckets included. Whoever runs it tells people so; who needs objects to last points S3_ENDPOINT_URL at a store
that keeps them.
"""

import http.client
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.config
import botocore.session

from deploy.local.ports import LOOPBACK, free_port
from deploy.local.process import ServerProcess

_REGION = "us-east-1"
_CHECKOUT = Path(__file__).resolve().parents[2]
_PROBE_TIMEOUT_S = 2.0
_NO_FILES = {
    # botocore's (name in the file, variable, default, conversion): no profile and no files of the person who runs us
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing says of an object."""

    key: str
    size_bytes: int


def list_objects(client: Any, bucket: str) -> list[StoredObject]:
    """Every object of the bucket, by key."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [StoredObject(entry["Key"], entry["Size"]) for page in pages for entry in page.get("Contents", ())]


def read_object(client: Any, bucket: str, key: str) -> bytes:
    """The bytes of one object."""
    body: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


class EmbeddedS3:
    """One S3 server, empty at every start.

    Args:
        directory: gets the log; made if need be.
        port: on the loopback address; None takes any free one. A restart keeps it.

    """

    def __init__(self, directory: Path, *, port: int | None = None) -> None:
        self.directory = directory.absolute()
        self.port = port or free_port()
        self.process = ServerProcess(
            f"S3 on {self.endpoint_url}",
            [sys.executable, "-m", "deploy.local.s3_server", LOOPBACK, str(self.port)],
            log_file=self.directory / "s3.log",
            cwd=_CHECKOUT,  # where `deploy` is found, installed or not
        )

    @property
    def endpoint_url(self) -> str:
        """The address as clients want it."""
        return f"http://{LOOPBACK}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The variables with which Spillway, and any client that reads AWS's own, talk to this server.

        The credentials are as good as any other: the server checks none.
        """
        return {
            "AWS_ACCESS_KEY_ID": "spillway-local",
            "AWS_SECRET_ACCESS_KEY": "spillway-local",
            "AWS_REGION": _REGION,
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "S3_ENDPOINT_URL": self.endpoint_url,
        }

    def start(self, deadline_s: float = 30) -> None:
        """Start, and wait until it answers.

        Raises:
            StartError: it died or was not ready in time; its log's tail is in the message.

        """
        self.process.start()
        self.process.wait_ready(self._answers, deadline_s)

    def stop(self, timeout_s: float = 10) -> None:
        """End it and forget all objects. Not running is fine."""
        self.process.stop(timeout_s)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL). All objects are gone."""
        self.process.kill()

    def freeze(self) -> None:
        """Make it hang: connections stay open, nothing answers (SIGSTOP)."""
        self.process.freeze()

    def thaw(self) -> None:
        """End the hang (SIGCONT)."""
        self.process.thaw()

    def client(self) -> Any:
        """A synchronous botocore client of this server, whatever the environment says. The caller closes it."""
        variables = self.environment()
        return botocore.session.Session(session_vars=_NO_FILES).create_client(
            "s3",
            region_name=_REGION,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            config=botocore.config.Config(
                s3={"addressing_style": "path"}, connect_timeout=3, read_timeout=10, proxies={}
            ),
        )

    def create_bucket(self, name: str) -> None:
        """Make a bucket."""
        client = self.client()
        try:
            client.create_bucket(Bucket=name)
        finally:
            client.close()

    def objects(self, bucket: str) -> list[StoredObject]:
        """Every object of the bucket, by key."""
        client = self.client()
        try:
            return list_objects(client, bucket)
        finally:
            client.close()

    def read(self, bucket: str, key: str) -> bytes:
        """The bytes of one object."""
        client = self.client()
        try:
            return read_object(client, bucket, key)
        finally:
            client.close()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=_PROBE_TIMEOUT_S)
        try:
            connection.request("GET", "/moto-api/data.json")
            answer = connection.getresponse()
            answer.read()
        except http.client.HTTPException:
            return False
        finally:
            connection.close()
        return answer.status == http.HTTPStatus.OK
