"""The wire client's requests as bytes: what botocore would send, signed here. Nothing here is ever sent.

`template` reads it once, from a request that botocore makes; `request_head` fills in what differs from put to put and
has it signed by `signature`; `redirect` says whether a 307 may be followed. All but `template` are pure.
"""
