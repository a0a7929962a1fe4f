"""The wire client's connections: HTTP/1.1 of our own on one host, one request at a time on each. They know no S3.

`pool` bounds them and finds one for a put, over the host's `addresses` and with the authorities of `trust`; a
`connection` carries one request, sent at the end of the turn by `outbox`, and waits for its answer, which
`answer_reader` (pure) reads within bounds.
"""
