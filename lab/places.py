"""Where the artifact store is, as its settings say it: a folder or a bucket."""

import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

ALLOWED = "a folder, file:///folder, s3://bucket or s3://bucket/prefix"
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PREFIX = re.compile(r"(/\w[\w.-]*)*/?", re.ASCII)


def of_store(url: str) -> str:
    """The URL of an artifact store. Raises ValueError for any other."""
    if bucket_of(url) is None:
        folder_of(url)
    return url


def folder_of(url: str) -> Path:
    """The folder that a path or a ``file://`` URL names. Raises ValueError."""
    parts = urlsplit(url)
    if url and not parts.scheme:
        return Path(url).expanduser().absolute()
    if parts.scheme == "file" and parts.path and parts.netloc in {"", "localhost"} and not parts.query:
        return Path(url2pathname(parts.path)).absolute()
    raise ValueError(f"CREDITLAB_ARTIFACT_URL: {without_secrets(url)!r} is not supported; give {ALLOWED}")


def bucket_of(url: str) -> str | None:
    """``bucket`` or ``bucket/prefix`` of an ``s3://`` URL, None where it is none. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme != "s3":
        return None
    if not BUCKET.fullmatch(parts.netloc) or not PREFIX.fullmatch(parts.path) or parts.query or parts.fragment:
        told = (
            "the bucket has 3 to 63 of a-z, 0-9, '.' and '-'; names in the prefix have letters, digits, '_', '.', '-'"
        )
        raise ValueError(f"CREDITLAB_ARTIFACT_URL: {without_secrets(url)!r} is not s3://bucket/prefix: {told}")
    return parts.netloc + parts.path.rstrip("/")


def of_endpoint(url: str | None) -> str | None:
    """The address of an S3-compatible server. Raises ValueError for any other."""
    if url is None:
        return None
    parts = urlsplit(url)
    plain = parts.hostname and not parts.username and parts.path in {"", "/"} and not parts.query
    if parts.scheme not in {"http", "https"} or not plain:
        told = f"{without_secrets(url)!r} is not http://host:port or https://host, without a user or a path"
        raise ValueError(f"CREDITLAB_S3_ENDPOINT_URL: {told}")
    return url


def without_secrets(url: str) -> str:
    """The URL without the user and password that do not belong there."""
    return re.sub(r"//[^/@]*@", "//…@", url)
