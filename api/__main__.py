"""``python -m api``: the API's process."""

import argparse
import gc
import socket
import sys
import tempfile

import uvicorn
from pydantic import ValidationError

from api import supervisor
from api.app import create_app
from api.middleware import refuse_open
from api.stream import Watcher
from lab import logs
from lab.settings import Settings

GRACE_SECONDS = 5
BAD_USAGE = 2


class Server(uvicorn.Server):
    """Answers those who wait for a change before it waits for their requests to end."""

    def __init__(self, config: uvicorn.Config, watcher: Watcher) -> None:
        super().__init__(config)
        self.watcher = watcher

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.watcher.close()
        await super().shutdown(sockets)


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; the exit status of the process."""
    parser = argparse.ArgumentParser(prog="python -m api", description="CreditLab's HTTP API")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)  # of the socket that a supervisor listens on
    chosen = parser.parse_args(arguments)
    try:
        settings = Settings.load()
        refuse_open(chosen.host, settings)
        app = create_app(settings)
    except (ValidationError, ValueError) as error:
        return refuse(str(error))
    config = uvicorn.Config(
        app,
        chosen.host,
        chosen.port,
        http="h11",  # httptools answers what it does not know by itself, in plain text
        ws="none",
        log_config=None,
        lifespan="on",
        access_log=False,  # the application writes one that has the request ids
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    logs.configure()
    if chosen.fd is None and settings.api_processes > 1:
        with config.bind_socket() as listening:
            return supervisor.serve(settings.api_processes, chosen.host, listening)
    tempfile.tempdir = str(settings.data_dir)  # what is received waits on the disk of the data, wherever /tmp may be
    server = Server(config, app.state.watcher)
    app.openapi()  # made now and kept: no request waits for it
    gc.collect()
    gc.freeze()  # what is here by now stays: no collection needs to look through it while somebody waits for an answer
    server.run(None if chosen.fd is None else [socket.socket(fileno=chosen.fd)])
    return 0 if server.started else 1


def refuse(reason: str) -> int:
    sys.stderr.write(f"python -m api: {reason}\n")
    return BAD_USAGE


if __name__ == "__main__":
    sys.exit(main())
