"""The API as its users see it: the models behind `/docs` and `/openapi.json`. Documentation, never on the hot path.

The hot route slices bodies itself (`collection`), so nothing here parses a request; a test holds the two together.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from services.ingest.problems import Code


class CollectionRequest(BaseModel):
    """Payloads that belong together: all of them are made durable, or the answer is no 200."""

    version: str = Field(
        description="Version of the payloads' form, the client's own; at most 256 bytes", max_length=256
    )
    token: str = Field(default="", description="The client's token; may come as `Authorization: Bearer` instead")
    data: list[Any] = Field(description="The payloads: any JSON values, stored byte for byte", min_length=1)


class Accepted(BaseModel):
    """Every payload has been acknowledged by Kafka."""

    accepted: int = Field(description="How many payloads")
    ids: list[str] = Field(description="Their ids, in the order of `data`; an object's key ends in its id")


class ProblemDocument(BaseModel):
    """RFC 9457. Build on `code`, `retryable` and `outcome`; the texts are for people."""

    type: str
    title: str
    status: int
    detail: str
    code: Literal[tuple(code.name.lower() for code in Code)]  # type: ignore[valid-type] # the table is the source
    request_id: str = Field(description="Also in the header `X-Request-Id`, and in our log")
    retryable: bool = Field(description="Whether the same body may succeed later")
    outcome: Literal["not_written", "unknown"] = Field(description="What is known about the payloads")


_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "Partition-Key",
        "in": "header",
        "required": False,
        "description": "Collections of one key go to one partition of the topic. Printable ASCII, 1 to 256 characters.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
            "pattern": r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$",  # space at an end is not the value's
        },
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": (
            "A UUIDv7 of the client's, quotes allowed; its time between 2020 and a day from now. It becomes the "
            "collection's UUID: the same body under the same key has the same ids and the same S3 keys, whenever and "
            "wherever it is sent again; another body has others"
        ),
        "schema": {
            "type": "string",
            "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
        },
    },
    {
        "name": "X-Request-Id",
        "in": "header",
        "required": False,
        "description": "Taken over where it is 1 to 128 of `A-Z a-z 0-9 . _ : -`, else replaced; stands in the answer",
        "schema": {"type": "string"},
    },
    {
        "name": "traceparent",
        "in": "header",
        "required": False,
        "description": "W3C trace context, passed on in the Kafka records",
        "schema": {"type": "string"},
    },
]

_REQUEST_ID = {
    "description": "The request's id, the client's own or a new one; our log has it",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
}
_ALLOW = {"description": "The methods that are taken", "required": True, "schema": {"type": "string"}}
_RETRY_AFTER = {
    "description": "Seconds after which the same body may succeed",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
_CHALLENGE = {"description": "`Bearer`, RFC 6750", "required": True, "schema": {"type": "string"}}
_HEADERS = {
    401: {"WWW-Authenticate": _CHALLENGE},
    405: {"Allow": _ALLOW},
    429: {"Retry-After": _RETRY_AFTER},
    503: {"Retry-After": _RETRY_AFTER},
}


def extend(document: dict[str, Any], path: str) -> dict[str, Any]:
    """Add the collections route to the framework's OpenAPI document.

    Args:
        document: as FastAPI makes it; changed in place.
        path: of the route.

    Returns:
        The document.

    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (CollectionRequest, Accepted, ProblemDocument):
        schemas[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "Needed where the server has a tokens file; `token` in the body will do, too",
        }
    }
    answers: dict[str, Any] = {
        "200": {
            "description": "Every payload has been acknowledged by Kafka",
            "headers": {"X-Request-Id": _REQUEST_ID},
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Accepted"}}},
        }
    }
    for status in sorted({code.value.status for code in Code}):
        if status == 404:  # noqa: PLR2004 - the answer of other paths
            continue
        codes = [code for code in Code if code.value.status == status]
        answers[str(status)] = {
            "description": "; ".join(f"`{code.name.lower()}`: {code.value.title}" for code in codes),
            "headers": {"X-Request-Id": _REQUEST_ID, **_HEADERS.get(status, {})},
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
    document.setdefault("paths", {})[path] = {
        "post": {
            "tags": ["collections"],
            "summary": "Make a collection of payloads durable",
            "description": "The answer is 200 only after Kafka has acknowledged every payload (acks=all).",
            "operationId": "post_collection",
            "parameters": _PARAMETERS,
            "security": [{"bearer": []}, {}],  # none: the token may stand in the body, or nobody needs one
            "requestBody": {
                "required": True,
                "description": "May be compressed: `Content-Encoding: gzip` or `zstd`",
                "content": {
                    "application/json": {
                        "schema": {"$ref": "#/components/schemas/CollectionRequest"},
                        "example": {"version": "1", "token": "", "data": [{"temperature_c": 21.5}, [1, 2], "text"]},
                    }
                },
            },
            "responses": answers,
        }
    }
    return document
