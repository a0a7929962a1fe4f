"""Where AWS credentials come from, each as a small local thing that a test renews: variables, a file, STS, a pod's
agent, an instance's metadata service.

Owns one HTTP server in a thread for those that are asked. A source hands out one access key at a time; who checks it is
the fake S3. `renew` changes the key as an operator or a platform would: behind the back of the process.
"""

import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

_ROLE = "/latest/meta-data/iam/security-credentials/"


class CredentialServer:
    """STS, a pod identity agent and an instance metadata service in one. A context manager.

    Attributes:
        access_key: what it hands out now; the secret and the session token follow from it.
        lifetime_s: how long that is good, as it says.
        away: while true, every answer is a 500.
        token: the token that the agent and STS want to see.

    """

    def __init__(self) -> None:
        self.access_key = ""
        self.lifetime_s = 6 * 3600.0
        self.away = False
        self.token = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="credentials")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: str) -> tuple[int, str]:
        """Status and body of an answer."""
        if self.away:
            return 500, "away"
        if path == "/pod":
            return (200, self._json()) if headers.get("Authorization") == self.token else (401, "{}")
        if path == "/latest/api/token":
            return 200, "imds-token"
        if path.startswith(_ROLE):
            return 200, "role" if path == _ROLE else self._json()
        if method == "POST":
            known = parse_qs(body).get("WebIdentityToken") == [self.token]
            return (200, self._sts()) if known else (400, _error("InvalidIdentityToken"))
        return 404, ""

    def _expires(self) -> str:
        return (datetime.now(UTC) + timedelta(seconds=self.lifetime_s)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _json(self) -> str:
        return json.dumps(
            {
                "Code": "Success",
                "AccessKeyId": self.access_key,
                "SecretAccessKey": "secret",
                "Token": f"token-of-{self.access_key}",
                "Expiration": self._expires(),
            }
        )

    def _sts(self) -> str:
        return (
            '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            f"<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{self.access_key}</AccessKeyId>"
            f"<SecretAccessKey>secret</SecretAccessKey><SessionToken>token-of-{self.access_key}</SessionToken>"
            f"<Expiration>{self._expires()}</Expiration></Credentials><AssumedRoleUser><Arn>arn:aws:sts::1:role</Arn>"
            "<AssumedRoleId>role:session</AssumedRoleId></AssumedRoleUser></AssumeRoleWithWebIdentityResult>"
            "</AssumeRoleWithWebIdentityResponse>"
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        source = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                status, text = source.answer(self.command, self.path, self.headers, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_PUT = do_POST = _serve  # noqa: N815 - the standard library's names

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _error(code: str) -> str:
    return f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"


class Source:
    """One source of the chain. `environment` points a process at it; `renew` gives it another key."""

    def __init__(self, kind: str, server: CredentialServer, directory: Path) -> None:
        self.kind = kind
        self.server = server
        self._file = directory / f"{kind}-secret"
        self._number = 0

    def environment(self) -> dict[str, str]:
        """The variables of this source, and of no other."""
        bare = {
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        match self.kind:
            case "environment":
                return {**bare, "AWS_ACCESS_KEY_ID": self.server.access_key, "AWS_SECRET_ACCESS_KEY": "secret"}
            case "profile":
                return {**bare, "AWS_SHARED_CREDENTIALS_FILE": str(self._file), "AWS_PROFILE": "writer"}
            case "web-identity":
                role = {"AWS_ROLE_ARN": "arn:aws:iam::1:role/writer", "AWS_ENDPOINT_URL_STS": self.server.url}
                return {**bare, **role, "AWS_WEB_IDENTITY_TOKEN_FILE": str(self._file)}
            case "pod":
                token = {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(self._file)}
                return {**bare, **token, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.server.url}/pod"}
            case _:
                service = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.server.url}
                return {**bare, **service, "AWS_EC2_METADATA_DISABLED": "false"}

    def renew(self, access_key: str) -> None:
        """Hand out this key from now on; the tokens that guard a source change with it."""
        self._number += 1
        self.server.access_key = access_key
        self.server.token = f"guard-{self._number}"
        if self.kind == "profile":
            lines = ["[writer]", f"aws_access_key_id = {access_key}", "aws_secret_access_key = secret"]
            self._replace("\n".join(lines))
        elif self.kind in ("web-identity", "pod"):
            self._replace(self.server.token)
        elif self.kind == "environment" and self._number > 1:
            os.environ["AWS_ACCESS_KEY_ID"] = access_key  # a renewal; the first key came with `environment`

    def take_away(self) -> None:
        """Nothing is handed out, as if it were not set up yet."""
        self.server.away = True
        self._file.unlink(missing_ok=True)

    def bring_back(self, access_key: str) -> None:
        """It hands out again."""
        self.server.away = False
        self.renew(access_key)

    def _replace(self, text: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(text, "utf-8")
        new.replace(self._file)
