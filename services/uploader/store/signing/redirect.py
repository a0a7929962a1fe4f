"""Whether a 307 may be followed: only to the same bucket of the same service of AWS. Pure.

S3 answers so for hours after a bucket is made, until DNS knows it. A body goes to no other host: what else a 307 names
is an error, and a custom endpoint never redirects.
"""

import re
from dataclasses import replace
from urllib.parse import urlsplit

from services.uploader.store.signing.request_head import Template

_OF_S3 = re.compile(r"(?:(?P<bucket>[a-z0-9.-]+)\.)?s3(?:[.-][a-z0-9-]+)*\.(?P<service>amazonaws\.com(?:\.cn)?)")


def followed(template: Template, path: str, location: str, region: str) -> Template | None:
    """The template for the host that `location` names; None: it may not be followed.

    Args:
        template: of the request that was answered.
        path: of that request.
        location: the header of the answer.
        region: of the bucket, as the answer says; empty where it does not.

    """
    try:
        parts = urlsplit(location)
        port = parts.port
    except ValueError:  # no URL at all
        return None
    before, after = _OF_S3.fullmatch(template.host), _OF_S3.fullmatch(parts.hostname or "")
    if before is None or after is None or before.groupdict() != after.groupdict():
        return None
    if region not in ("", template.region) or parts.scheme != ("https" if template.tls else "http"):
        return None
    if port not in (None, template.port) or parts.path != path or parts.query or parts.username is not None:
        return None
    return replace(template, host=parts.hostname or "", host_header=parts.hostname or "")
