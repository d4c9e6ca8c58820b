"""The artifact store: files of jobs by their location, ``<job>/attempt-<fence>/<name>``.

A file is in the store whole or not at all, and counts only once a row of the database names it. What an attempt has put
there without such a row, because it died or was fenced, is removed by whoever ends the next attempt.
"""

import errno
import shutil
from collections.abc import Collection
from pathlib import Path

from credit.durable import publish


class Store:
    """A folder. Workers and API of one service share it.

    Args:
        root: where it is; made at first need.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, location: str) -> Path:
        """Where the file of a location is."""
        return self.root / location

    def put(self, file: Path, location: str) -> None:
        """Move a file into the store, durably.

        Raises:
            OSError: there is no room, or nothing may be written there.
        """
        target = self.path(location)
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

    def prune(self, job_id: str, fence: int, keep: Collection[str]) -> None:
        """Remove what attempts up to ``fence`` have left of a job, but for the locations to keep."""
        kept = {self.path(location) for location in keep}
        for folder in self.path(job_id).glob("attempt-*"):
            if int(folder.name.removeprefix("attempt-")) > fence:
                continue  # it may be writing; what it has written is not registered yet
            for file in folder.iterdir():
                if file not in kept:
                    file.unlink(missing_ok=True)
            if not kept.intersection(folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)

    def forget(self, job_id: str) -> None:
        """Remove all files of a job."""
        shutil.rmtree(self.path(job_id), ignore_errors=True)


def location_of(job_id: str, fence: int, name: str) -> str:
    """Where an attempt's file goes."""
    return f"{job_id}/attempt-{fence}/{name}"
