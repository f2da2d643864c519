"""The URI that a run is kept at: whether it can be one, and the file system that it names.

Knows URIs and pyarrow's file systems, nothing of runs. Credentials come from the environment, never from a URI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from hpo_ray.errors import nearest

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")
# An outage is to be noticed within seconds: the SDKs' own defaults try for up to a quarter of an hour.
CONNECT_S = 3.0
REQUEST_S = 10.0
ATTEMPTS = 2
GCS_RETRY_S = 5
_BYTES = "surrogateescape"  # a file's name need not be text
_SECRET = re.compile(r"key|secret|password|token|signature|credential|^sig$", re.IGNORECASE)
_AZURE = (
    *("blob_storage_authority", "dfs_storage_authority", "enable_tls", "background_writes"),
    *("credential_kind", "tenant_id", "client_id"),
)
_S3_OPTIONS = {"region", "scheme", "endpoint_override", "tls_ca_file_path"}
_S3_FLAGS = {"allow_bucket_creation", "allow_bucket_deletion", "force_virtual_addressing"}
_GCS = ("scheme", "endpoint_override", "retry_limit_seconds", "project_id")
_OPTIONS = {
    "s3": (*_S3_OPTIONS, *_S3_FLAGS, "tls_verify_certificates", "allow_delayed_open", "smart_defaults"),
    **dict.fromkeys(("gs", "gcs"), _GCS),
    **dict.fromkeys(("abfs", "abfss"), _AZURE),
}


def is_uri(text: str) -> bool:
    """Whether it names a place by its scheme, not a path on this machine."""
    return "://" in text


def problem_of(uri: str) -> str:
    """Why nothing can be kept at a URI, in words that hold nothing of it but its scheme; empty: perhaps it can."""
    scheme, separator, _ = uri.partition("://")
    if not separator:
        folder = uri if uri.startswith("/") else "/nfs/runs"
        return f"expected a URI, e.g. s3://bucket/folder, gs://bucket/folder or file://{folder}"
    if scheme not in SCHEMES:
        return f"there is no '{scheme}'; expected one of {', '.join(f'{known}://' for known in SCHEMES)}"
    try:
        parts = urlsplit(uri)
        options = parse_qs(parts.query, keep_blank_values=True)
    except ValueError:
        return "it is no URI"
    user = parts.netloc.rpartition("@")[0]
    secret = ":" in user or (scheme == "s3" and user) or any(_SECRET.search(name) for name in options)
    if secret:
        return (
            "it holds a password, which would be written into the journal: leave it out, and set what the storage "
            "takes from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, "
            "…) or from the machine's role"
        )
    if scheme != "file" and not parts.netloc:
        return f"it names no bucket: expected {scheme}://bucket/folder"
    if scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        return "expected a path from the root, with three slashes: file:///nfs/runs"
    return _unknown_option(scheme, options)


def _unknown_option(scheme: str, options: Iterable[str]) -> str:
    known = _OPTIONS.get(scheme)
    unknown = [name for name in options if known is not None and name not in known]
    return f"there is no option '{unknown[0]}'; {nearest(unknown[0], known or ())}" if unknown else ""


def join(uri: str, *names: str) -> str:
    """The URI of something in the folder that a URI names, whatever characters the names are of; its options stay at
    the end.
    """
    address, question, options = uri.partition("?")
    return "/".join((address.rstrip("/"), *(quote(name, "", errors=_BYTES) for name in names))) + question + options


def split(uri: str) -> tuple[str, str]:
    """A URI's folder as a URI, and the name in it, as `join` was given it."""
    address, question, options = uri.partition("?")
    folder, _, name = address.rstrip("/").rpartition("/")
    return folder + question + options, unquote(name, errors=_BYTES)


def shown(uri: str) -> str:
    """A URI as a user is told of it: without options, and without anything before an @."""
    scheme, separator, rest = uri.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return scheme + separator + host.rpartition("@")[2] + slash + path


def opened(uri: str) -> tuple[Any, str]:
    """The file system that a URI names, set to notice an outage within seconds; and the path there.

    Raises:
        ValueError: The URI is none, or has an option that there is not.
        OSError: The place cannot be reached.
    """
    from pyarrow.fs import FileSystem

    scheme, _, _ = uri.partition("://")
    unknown = _unknown_option(scheme, parse_qs(uri.partition("?")[2], keep_blank_values=True))
    if unknown:
        raise ValueError(unknown)
    if scheme == "s3":
        return _s3(uri)
    if uri.startswith(("gs://", "gcs://")) and "retry_limit_seconds=" not in uri:
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={GCS_RETRY_S}"
    found: tuple[Any, str] = FileSystem.from_uri(uri)
    return found


def _s3(uri: str) -> tuple[Any, str]:
    """As pyarrow would do it, but for its patience, which no URI can change."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem, S3FileSystem, resolve_s3_region

    parts = urlsplit(uri)
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.username or given.keys() - _S3_OPTIONS - _S3_FLAGS:  # credentials of one who only reads; or rare ones
        found: tuple[Any, str] = FileSystem.from_uri(uri)
        return found
    options: dict[str, Any] = {name: value for name, value in given.items() if name in _S3_OPTIONS}
    options |= {name: value.lower() in ("1", "true") for name, value in given.items() if name in _S3_FLAGS}
    if not options.keys() & {"region", "endpoint_override"}:
        options["region"] = resolve_s3_region(parts.netloc)
    options |= {"connect_timeout": CONNECT_S, "request_timeout": REQUEST_S}
    options["retry_strategy"] = AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
    try:
        system = S3FileSystem(**options, allow_delayed_open=True)  # a small file in one request, not three
    except TypeError:  # an older pyarrow
        system = S3FileSystem(**options)
    return system, (parts.netloc + unquote(parts.path)).rstrip("/")
