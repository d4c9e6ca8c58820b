"""Files of one attempt on their way between its folder and the artifact store, in a thread of their own.

However slow the store is, the supervisor goes on renewing its lease and telling its training process that it lives.
"""

import json
import mimetypes
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from credit import spec
from credit.durable import sha256
from credit.events import Checkpointed, Event, Troubled
from lab import attempts, datasets, specs
from lab.errors import StoreUnavailable
from lab.files import Store, location_of
from lab.settings import Settings

T = TypeVar("T")


class Transfer:
    """One thing after the other is done, in the order in which it was asked for.

    Args:
        store: where files are kept.
        attempt: whose files they are.
        folder: of the attempt; has to be there before anything is asked for.
    """

    def __init__(self, store: Store, attempt: attempts.Attempt, folder: Path) -> None:
        self.store, self.attempt, self.folder = store, attempt, folder
        self.unnamed: set[str] = set()
        """Locations of checkpoints that no row names yet."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="transfer")
        self._lock = threading.Lock()
        self._next: Checkpointed | None = None
        self._kept: list[Future[Event | None]] = []

    def do(self, work: Callable[[], T]) -> "Future[T]":
        """Have something done in the thread."""
        return self._thread.submit(work)

    def keep(self, event: Checkpointed) -> None:
        """Put a checkpoint into the store, unless the next one is there before its turn comes: then only that one."""
        self.unnamed.add(self._location(event.file))
        with self._lock:
            overtaken, self._next = self._next, event
        if overtaken:
            (self.folder / overtaken.file).unlink(missing_ok=True)
        self._kept.append(self._thread.submit(self._put_next))

    def kept(self) -> list[Event]:
        """What became of checkpoints since the last time; one counts once its event is recorded."""
        done = [task for task in self._kept if task.done()]
        self._kept = [task for task in self._kept if task not in done]  # others may be done by now
        return [event for task in done if (event := task.result())]

    def busy(self, seconds: float) -> bool:
        """Whether a checkpoint is still on its way, after so many seconds at most."""
        return bool(self._kept) and bool(wait(self._kept, seconds).not_done)

    def _put_next(self) -> Event | None:
        with self._lock:
            event, self._next = self._next, None
        if event is None:
            return None
        location = self._location(event.file)
        try:
            self.store.put(self.folder / event.file, location)
        except StoreUnavailable as error:
            return Troubled(message=f"the checkpoint of step {event.step} could not be stored: {error.reason}")
        return replace(event, file=location)

    def fetch(self, settings: Settings) -> list[dict[str, Any]]:
        """Have what the run needs on this machine: a user's data set, and the checkpoints that it may go on from.

        Returns the latest checkpoint first, down to the first one that is what was stored. What those before it lack is
        for the run to find and to tell.

        Raises:
            RunError: the data set is gone or damaged.
            StoreUnavailable: the store does not answer.
        """
        dataset = self.attempt.spec["dataset"]
        if "sha256" in dataset:  # what else is in the spec is for the run to read
            datasets.fetch(self.store, settings, specs.adapter(spec.Uploaded).validate_json(json.dumps(dataset)))
        fetched = []
        for stored in self.attempt.checkpoints:
            path = self.folder / f"from-{stored.step}"
            with suppress(FileNotFoundError):
                self.store.fetch(stored.location, path)
            fetched.append({"path": str(path), "sha256": stored.sha256, "step": stored.step})
            if path.is_file() and sha256(path) == stored.sha256:
                break
        return fetched

    def artifacts(self) -> list[attempts.Artifact]:
        """The files that the run has made, once they are in the store. Raises StoreUnavailable, OSError."""
        return [self._stored(path) for path in sorted((self.folder / "out").iterdir())]

    def _stored(self, path: Path) -> attempts.Artifact:
        size, digest, location = path.stat().st_size, sha256(path), self._location(path.name)
        self.store.put(path, location)
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return attempts.Artifact(path.name, size, digest, media_type, location)

    def _location(self, name: str) -> str:
        return location_of(self.attempt.job_id, self.attempt.fence, name)

    def close(self) -> None:
        """Wait for what is being done, and do no more."""
        self._thread.shutdown(wait=True, cancel_futures=True)
