"""`python -m deploy.local.stored [KEY]`: what the bucket holds, or the exact bytes of one object on standard output.

Reads the variables that `make run` writes to `.run/env`, so it is also the shortest proof that they work.
"""

import os
import sys

import botocore.exceptions
import botocore.session

from deploy.local.s3 import list_objects, read_object
from deploy.local.show import Row, Screen

_SHOWN_MAX = 100


def main(arguments: list[str]) -> None:
    """List, or print one object."""
    bucket, endpoint_url = os.environ.get("S3_BUCKET"), os.environ.get("S3_ENDPOINT_URL")
    if not bucket or not endpoint_url:
        sys.exit("error: S3_BUCKET and S3_ENDPOINT_URL are not set; in the checkout: . .run/env")
    client = botocore.session.Session().create_client("s3", endpoint_url=endpoint_url)
    try:
        if arguments:
            sys.stdout.buffer.write(read_object(client, bucket, arguments[0]))
            return
        found = list_objects(client, bucket)
        rows = [Row(one.key, one.size_bytes, read_object(client, bucket, one.key)) for one in found[:_SHOWN_MAX]]
        screen = Screen(sys.stdout)
        screen.table(rows)
        if len(found) > len(rows):
            screen.say(f"and {len(found) - len(rows)} more")
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        sys.exit(f"error: {endpoint_url}: {error}")
    finally:
        client.close()


if __name__ == "__main__":
    main(sys.argv[1:])
