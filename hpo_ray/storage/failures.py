"""What a storage's error means: it is away, which passes; or it refuses, which only its owner can mend. And its words.

Knows what the file systems say, since pyarrow has kinds for little of it; opens none.
"""

from __future__ import annotations

import os
import re
import socket

from hpo_ray.storage import address

_DENIED = re.compile(
    r"access_?denied|invalid_?access_?key|signature_?does_?not_?match|missing_?authentication|expired_?token"
    r"|invalid_?token|invalid_?client_?token|all_?access_?disabled|account_?problem|HTTP status 40[13]\b"
    r"|permission[_ ]?denied|unauthenticated|authorization|authentication_?failed|accesscontrolexception",
    re.IGNORECASE,
)
_NO_BUCKET = re.compile(
    r"no_?such_?bucket|bucket '[^']*' not found|container_?not_?found|specified (?:bucket|container) does not exist",
    re.IGNORECASE,
)
# Of a long message that says where and what, and by which request, what went wrong.
_AROUND = re.compile(r"^When .*?: (?=AWS Error)| \(Request ID: [^)]*\)")
# Where credentials are looked for first.
_VARIABLES = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "gcs": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "abfs": ("AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
    "abfss": ("AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
}


class Unreachable(OSError):
    """The storage cannot be reached, or does not do what it is asked: to be tried again."""


class Refused(Unreachable):
    """The storage denies access, or has no such bucket: waiting alone does not mend it."""


def told(uri: str, error: Exception) -> Unreachable:
    """A file system's error, in the user's words.

    Args:
        uri: The place's; no password in it is told.
        error: What its file system raised.
    """
    place = f"storage '{address.shown(uri)}'"
    text = _AROUND.sub("", " ".join(str(error).replace(uri, address.shown(uri)).split()))[:200]
    if _NO_BUCKET.search(str(error)):
        bucket = address.shown(uri).partition("://")[2].partition("/")[0]
        return Refused(f"{place}: there is no bucket '{bucket}': create it, or look at its name")
    if isinstance(error, PermissionError) or _DENIED.search(str(error)):
        way = "give them, or the machine's role, the right to list, read, write and delete there"
        return Refused(f"{place} denies access on {socket.gethostname()} to {_credentials(uri)}: {text}; {way}")
    return Unreachable(f"{place} cannot be reached: {text}")


def _credentials(uri: str) -> str:
    names = _VARIABLES.get(uri.partition("://")[0])
    if names is None:
        return f"user {os.getuid()}"
    found = [name for name in names if os.environ.get(name)]
    if found:
        return f"the credentials that {' and '.join(found)} name{'s' * (len(found) == 1)}"
    return f"the credentials of the machine's role or its user's files ({' and '.join(names)} are not set)"
