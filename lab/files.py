"""The artifact store: files by their location, in a folder or a bucket, through fsspec.

``<job>/attempt-<fence>/<name>`` is a job's file, ``datasets/<sha256>/…`` a data set that a user has sent. A file is in
the store whole or not at all, and counts only once a row of the database names it. What an attempt has put there
without such a row, because it died or was fenced, is removed by whoever ends the next attempt. API and supervisors use
the store, training processes never do.
"""

import errno
import re
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from credit.durable import publish
from lab import places
from lab.errors import StoreUnavailable
from lab.settings import Settings

LOCATION = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
"""No name in it begins with a dot, and none has a character that a file system or fsspec gives a meaning."""
ATTEMPT = re.compile(r"attempt-(\d+)/")
PART_BYTES = 2**24
"""Of an upload in parts; files of twice as much and more go up in parts."""
PARTS_AT_ONCE = 4
CONNECT_SECONDS, READ_SECONDS, TRIES = 5, 15, 2


class Store:
    """Files by location, on a file system of fsspec. Threads may share one.

    Args:
        files: the file system.
        root: below which all locations are.

    Raises:
        StoreUnavailable: by every method, where the store does not answer or refuses.
        ValueError: by every method, for what is no location.
    """

    faults: tuple[type[Exception], ...] = (OSError,)
    """By which the file system says that it does not work."""

    def __init__(self, files: Any, root: str) -> None:
        self.files, self.root = files, root

    def put(self, file: Path, location: str) -> None:
        """Move a file into the store; it is there, durably, when this returns."""
        with self._answering():
            try:
                self._put(file, self._at(location))
            except FileNotFoundError as error:  # no bucket, or no file
                raise StoreUnavailable(str(error)) from error

    def fetch(self, location: str, target: Path) -> None:
        """Have the file at ``target``, too; whether it is what was put there is for the caller to check.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._answering():
            self._fetch(self._at(location), target)

    def size(self, location: str) -> int:
        """Bytes of a file. Raises FileNotFoundError."""
        with self._answering():
            info = self.files.info(self._at(location))
        if info["type"] != "file":
            raise FileNotFoundError(location)
        return int(info["size"])

    def has(self, location: str, size: int) -> bool:
        """Whether the file is there and has so many bytes."""
        try:
            return self.size(location) == size
        except FileNotFoundError:
            return False

    def read(self, location: str, start: int, stop: int) -> bytes:
        """The bytes of a file from ``start`` up to ``stop``, which have to be some. Raises FileNotFoundError."""
        with self._answering():
            content: bytes = self.files.cat_file(self._at(location), start=start, end=stop)
        return content

    def remove(self, location: str) -> None:
        """Remove a file, if it is there."""
        with self._answering():
            self._remove(self._at(location))

    def prune(self, job_id: str, fence: int, keep: Collection[str]) -> None:
        """Remove what attempts up to ``fence`` have left of a job, but for the locations to keep."""
        place = self._at(job_id)
        kept = {self._at(location) for location in keep}
        with self._answering():
            for path in self._below(place):
                attempt = ATTEMPT.match(path.removeprefix(f"{place}/"))
                # a later one may be writing; what it has written is not registered yet
                if attempt and int(attempt[1]) <= fence and path not in kept:
                    self._remove(path)

    def forget(self, job_id: str) -> None:
        """Remove all files of a job."""
        with self._answering():
            for path in self._below(self._at(job_id)):
                self._remove(path)

    def probe(self) -> None:
        """Write a file, read it back and remove it."""
        location, content = f"probe-{secrets.token_hex(8)}/file", secrets.token_bytes(16)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "file"
            file.write_bytes(content)
            self.put(file, location)
        try:
            if self.read(location, 0, len(content)) != content:
                raise StoreUnavailable("it gives back other bytes than were written")
        except FileNotFoundError as error:
            raise StoreUnavailable("what was written is not there") from error
        finally:
            self.remove(location)

    def _at(self, location: str) -> str:
        """The path of a location, which cannot lead out of the root. Raises ValueError."""
        if not LOCATION.fullmatch(location):
            raise ValueError(f"{location!r} is no location in the store")
        return f"{self.root}/{location}"

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Tell a store that does not work from a file that is not there."""
        try:
            yield
        except (FileNotFoundError, StoreUnavailable):
            raise
        except self.faults as error:
            raise StoreUnavailable(str(error) or type(error).__name__) from error

    def _put(self, file: Path, path: str) -> None:
        self.files.put_file(str(file), path, chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        file.unlink()

    def _fetch(self, path: str, target: Path) -> None:
        self.files.get_file(path, str(target))

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self.files.rm_file(path)

    def _below(self, place: str) -> list[str]:
        found: list[str] = self.files.find(place)
        return found


class Folder(Store):
    """A folder, which workers and API share; made at first need."""

    def __init__(self, root: Path) -> None:
        super().__init__(LocalFileSystem(), str(root))

    def path(self, location: str) -> Path:
        """Where the file of a location is."""
        return Path(self._at(location))

    def forget(self, job_id: str) -> None:
        super().forget(job_id)
        shutil.rmtree(self.path(job_id), ignore_errors=True)

    def _put(self, file: Path, path: str) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            publish(file, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            draft = target.with_name(f"{target.name}.part")
            shutil.copyfile(file, draft)
            publish(draft, target)
            file.unlink()

    def _fetch(self, path: str, target: Path) -> None:
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(path)
        except FileNotFoundError:
            raise
        except OSError:  # on another disk, or one without links
            shutil.copyfile(path, target)

    def _remove(self, path: str) -> None:
        super()._remove(path)
        with suppress(OSError):  # others are in it
            Path(path).parent.rmdir()


class Bucket(Store):
    """A bucket of a service that speaks S3.

    Args:
        root: ``bucket`` or ``bucket/prefix``.
        settings: with the server's address, the key and the region.

    Raises:
        ValueError: s3fs is not installed, or half a key is given.
    """

    def __init__(self, root: str, settings: Settings) -> None:
        try:  # here, since it takes half a second that a folder does not need
            from aiohttp import ClientError  # noqa: PLC0415
            from botocore.exceptions import BotoCoreError  # noqa: PLC0415
            from s3fs import S3FileSystem  # noqa: PLC0415
        except ImportError as error:
            told = f"CREDITLAB_ARTIFACT_URL is {settings.artifact_url}, which needs s3fs: pip install 'creditlab[s3]'"
            raise ValueError(f"{told} ({error})") from error
        key, secret = settings.s3_access_key_id, settings.s3_secret_access_key
        if (key is None) != (secret is None):
            told = "give both, or neither for the standard AWS chain"
            raise ValueError(f"CREDITLAB_S3_ACCESS_KEY_ID and CREDITLAB_S3_SECRET_ACCESS_KEY belong together: {told}")
        self.faults = (OSError, BotoCoreError, ClientError)
        config: dict[str, Any] = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"mode": "standard", "max_attempts": TRIES},
        }
        if settings.s3_endpoint_url:  # what AWS added later, other servers need not know
            config["s3"] = {"addressing_style": "path"}
            config |= dict.fromkeys(("request_checksum_calculation", "response_checksum_validation"), "when_required")
        files = S3FileSystem(
            key=key,
            secret=secret and secret.get_secret_value(),
            endpoint_url=settings.s3_endpoint_url,
            client_kwargs={"region_name": settings.s3_region} if settings.s3_region else {},
            config_kwargs=config,
            use_listings_cache=False,
            skip_instance_cache=True,  # it would be one for each thread
        )
        files.retries = TRIES
        super().__init__(files, root)


def open_store(settings: Settings) -> Store:
    """The store that the settings name; nothing is asked of it yet. Raises ValueError."""
    bucket = places.bucket_of(settings.artifact_url)
    return Folder(settings.artifacts_dir) if bucket is None else Bucket(bucket, settings)


def location_of(job_id: str, fence: int, name: str) -> str:
    """Where an attempt's file goes."""
    return f"{job_id}/attempt-{fence}/{name}"
