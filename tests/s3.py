"""An S3-compatible server in a process of its own: moto, which speaks the real protocol over HTTP."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from itertools import count
from pathlib import Path
from typing import Any, Self

from creditlab.broker import free_port

BOOT_SECONDS = 60
SERVER = (
    "import sys; from moto.moto_server.threaded_moto_server import ThreadedMotoServer as S; "
    "from signal import pause; S('127.0.0.1', int(sys.argv[1]), verbose=False).start(); pause()"
)
_numbers = count()


class S3Server:
    """A server that can be killed and started again on its port; its memory goes with it, as a bucket's may."""

    def __init__(self, log: Path) -> None:
        self.port, self.log = free_port(), log
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.kill()

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", SERVER, str(self.port)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + BOOT_SECONDS
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def settings(self) -> dict[str, Any]:
        """Of a service that has its files in a new bucket here."""
        bucket = f"creditlab-test-{next(_numbers)}"
        self.make(bucket)
        return {
            "artifact_url": f"s3://{bucket}/some/prefix",
            "s3_endpoint_url": self.url,
            "s3_access_key_id": "testing",
            "s3_secret_access_key": "testing-secret",
            "s3_region": "us-east-1",
        }

    def make(self, bucket: str) -> None:
        request = urllib.request.Request(f"{self.url}/{bucket}", method="PUT", headers={"Authorization": SIGNED})
        with urllib.request.urlopen(request):
            pass


SIGNED = "AWS4-HMAC-SHA256 Credential=testing/20261124/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
"""By which moto tells for which service a request is; it checks no signatures."""
