"""The service in real containers, from a fresh clone to a restored backup: ``make compose-test``.

Not among the tests that ``make test`` finds: it needs a Docker engine that has the base images or may pull them, and
takes minutes. The steps build on each other; the first that fails is the last, and everything is taken down either way.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from creditlab import demo
from creditlab.broker import free_port
from creditlab.client import ENDED, Client, Retries

ROOT = Path(__file__).parents[2]
PROJECT, IMAGE = "creditlab-compose-test", "creditlab:compose-test"
LASTING: dict[str, Any] = {
    "method": "dfa",
    "model": {"name": "mlp", "hidden": [64, 64], "dropout": 0.1},
    "dataset": {"name": "fashion-mnist-mini", "train_samples": 2000, "test_samples": 500},
    "training": {"epochs": 400, "batch_size": 50, "seed": 11, "threads": 1},
    "alignment": {"every": 500, "samples": 64},
}
"""Training for long enough to be disturbed, with something to get wrong: masks of dropout, probes between epochs."""
SETTINGS = {
    "COMPOSE_PROJECT_NAME": PROJECT,
    "IMAGE": IMAGE,
    "WORKER_MEMORY_BYTES": str(3 * 2**30),
    "CREDITLAB_THREADS": "1",
    "CREDITLAB_API_PROCESSES": "2",
    "CREDITLAB_LEASE_SECONDS": "5",
    "CREDITLAB_CHECKPOINT_SECONDS": "0.5",
    "CREDITLAB_CHECKPOINT_SHARE": "1",
}


def environment() -> dict[str, str]:
    """Of the commands: this deployment and no other."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CREDITLAB_", "COMPOSE_"))}


def run(*command: str, cwd: Path = ROOT, stdin: bytes = b"") -> bytes:
    """What a command says on stdout; it has to succeed."""
    done = subprocess.run(command, cwd=cwd, env=environment(), input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:].decode()}\n{done.stderr[-3000:].decode()}"
    return done.stdout


def eventually(condition: Callable[[], Any], seconds: float = 180.0) -> Any:
    """The first true value of the condition."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)
    return value


def say(line: str) -> None:
    print(f"\n    {line}", end="", flush=True)  # noqa: T201


def layers() -> Iterator[bytes]:
    """All layers of the image in overlapping pieces."""
    before = b""
    with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as saving:
        while piece := saving.stdout.read(2**24):
            yield before + piece
            before = piece[-200:]
    assert saving.returncode == 0


class Stack:
    """A deployment in a copy of this repository, and the client of its first key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "docker"
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self.key = ""
        self.lab = Client(self.url)
        v2 = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
        self.command = ["docker", "compose"] if v2 else ["docker-compose"]
        self.undisturbed = ""

    def prepare(self) -> None:
        """The files of a fresh clone with settings of this test."""
        listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").decode()
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.folder.parent / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.folder.parent / name)
        settings = SETTINGS | {"PUBLISH": self.address}
        example = (self.folder / ".env.example").read_text().splitlines()
        kept = [line for line in example if line.partition("=")[0] not in settings]
        given = [f"{name}={value}" for name, value in settings.items()]
        (self.folder / ".env").write_text("\n".join([*kept, *given, ""]))

    def compose(self, *arguments: str, stdin: bytes = b"") -> bytes:
        return run(*self.command, *arguments, cwd=self.folder, stdin=stdin)

    def up(self) -> float:
        """``make compose-up``; the seconds until it said that the service is ready."""
        began = time.monotonic()
        said = run("make", "compose-up", cwd=self.folder.parent).decode()
        assert f"ready at {self.url}" in said
        assert "creditlab keys create" in said
        return time.monotonic() - began

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What the engine knows of them, ended ones too: a quick question, while they go on."""
        labels = {"project": PROJECT} | ({"service": service} if service else {})
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        ids = run("docker", "ps", "--all", "--quiet", *filters).decode().split()
        return json.loads(run("docker", "inspect", *ids)) if ids else []

    def running(self) -> list[dict[str, Any]]:
        return [one for one in self.containers() if one["State"]["Running"]]

    def workers(self) -> dict[str, dict[str, Any]]:
        """The living workers, by the container that they are in."""
        told = [one for one in self.lab.workers()["data"] if one["alive"] and not one["draining"]]
        ids = [one["Id"] for one in self.containers("worker") if one["State"]["Running"]]
        return {full: one for one in told for full in ids if full.startswith(one["host"])}

    def checkpointed(self, job_id: str) -> str:
        """The container that trains a job, which is on its way and has a checkpoint to go on from."""

        def trainer() -> str | None:
            job = self.lab.get(job_id)
            assert job["status"] not in ENDED, job
            stored = any(event["type"] == "checkpoint" for event in self.lab.events(job_id))
            if not stored:
                return None
            holders = [
                name for name, one in self.workers().items() for slot in one["slots"] if slot["job_id"] == job_id
            ]
            return holders[0] if holders else None

        return eventually(trainer)

    def submit(self, **fields: Any) -> str:
        return self.lab.submit(LASTING | fields)["id"]

    def weights(self, job_id: str) -> str:
        """The hash of a job's weights at its end, which has to be a good one."""
        job = self.lab.wait(job_id, 600)
        assert job["status"] == "succeeded", job
        return next(one["sha256"] for one in self.lab.artifacts(job_id)["data"] if one["name"] == "model.safetensors")


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The service, built and ready. All of it is taken away at the end, but for the image."""
    made = Stack(tmp_path_factory.mktemp("clone"))
    made.prepare()
    run("sh", "init.sh", cwd=made.folder)
    try:
        made.compose("down", "--volumes", "--remove-orphans")  # what a run that was killed has left
        began = time.monotonic()
        made.compose("build")
        size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", IMAGE))
        say(f"the image: {size / 1e6:.0f} MB, built in {time.monotonic() - began:.0f} s")
        say(f"from `make compose-up` to ready: {made.up():.0f} s")
        yield made
    finally:
        made.lab.close()
        if request.session.testsfailed:
            say(made.compose("logs", "--no-color", "--tail", "30").decode())
        made.compose("down", "--volumes", "--remove-orphans")


def test_the_first_key_is_made_inside_and_opens_the_api(stack: Stack) -> None:
    assert httpx.get(f"{stack.url}/v1/jobs").status_code == 401
    made = stack.compose("exec", "-T", "api", "creditlab", "keys", "create", "--scope", "admin").decode()
    stack.key = re.search(r"clk_\w+", made)[0]
    stack.lab.close()
    stack.lab = Client(stack.url, stack.key, retries=Retries(times=8, longest=10.0))
    assert stack.lab.page()["data"] == []


def test_every_container_becomes_healthy(stack: Stack) -> None:
    def healthy() -> bool:
        return all(one["State"].get("Health", {}).get("Status") == "healthy" for one in stack.running())

    assert len(stack.running()) == 4
    eventually(healthy)


def test_the_port_of_the_api_is_the_only_one(stack: Stack) -> None:
    published = [
        (one["Config"]["Labels"]["com.docker.compose.service"], inside, place["HostIp"], place["HostPort"])
        for one in stack.running()
        for inside, places in one["NetworkSettings"]["Ports"].items()
        for place in places or ()
    ]
    host, _, port = stack.address.partition(":")
    assert published == [("api", "8000/tcp", host, port)]


def test_nothing_runs_as_root_or_can_become_it(stack: Stack) -> None:
    for one in stack.running():
        for line in run("docker", "top", one["Id"], "-eo", "uid,pid,args").decode().splitlines()[1:]:
            assert line.split()[0] != "0", (one["Name"], line)
        limits = one["HostConfig"]
        assert limits["CapDrop"] == ["ALL"], one["Name"]
        assert "no-new-privileges:true" in limits["SecurityOpt"]
        assert limits["Memory"] > 0


def test_the_disk_cannot_be_written_to_but_where_data_belong(stack: Stack) -> None:
    for service in ("api", "worker", "postgres", "valkey"):
        (one, *_) = stack.containers(service)
        write = ("docker", "exec", one["Id"], "sh", "-c")
        denied = subprocess.run([*write, "echo x >/usr/x"], capture_output=True, check=False)
        assert b"Read-only file system" in denied.stderr
    for folder in ("/tmp", "/var/lib/creditlab"):
        stack.compose("exec", "-T", "worker", "sh", "-c", f"echo x >{folder}/x && rm {folder}/x")


def test_the_jobs_of_the_demo(stack: Stack) -> None:
    own = stack.lab.submit(demo.SPEC)
    ids = [own["id"], *(twin["job_id"] for twin in own["twins"])]
    assert [stack.lab.wait(job_id, 900)["status"] for job_id in ids] == ["succeeded"] * 3
    demo.check([stack.lab.record(job_id) for job_id in ids])


def test_a_worker_killed_in_the_middle_of_a_job(stack: Stack) -> None:
    stack.undisturbed = stack.weights(stack.submit(name="undisturbed"))
    stack.compose("up", "--detach", "--no-recreate", "--scale", "worker=2")
    eventually(lambda: len(stack.workers()) == 2)
    job_id = stack.submit(name="loses its worker")
    run("docker", "kill", "--signal", "KILL", stack.checkpointed(job_id))
    assert stack.weights(job_id) == stack.undisturbed
    assert stack.lab.get(job_id)["attempt"] == 2
    say(f"the same weights as undisturbed: {stack.undisturbed[:16]}…")


def test_three_workers(stack: Stack) -> None:
    stack.compose("up", "--detach", "--no-recreate", "--scale", "worker=3")
    eventually(lambda: len(stack.workers()) == 3)


def test_a_restart_of_the_broker(stack: Stack) -> None:
    before = stack.submit(name="before the restart")
    stack.checkpointed(before)
    stack.compose("restart", "valkey")
    after = stack.submit(name="after the restart")
    assert stack.weights(before) == stack.weights(after) == stack.undisturbed


def test_an_upgrade_to_a_new_image(stack: Stack) -> None:
    run("docker", "build", "--tag", IMAGE, "-", stdin=f"FROM {IMAGE}\nLABEL upgraded=yes\n".encode())
    old = {one["Id"] for service in ("api", "worker") for one in stack.containers(service)}
    ids = [stack.submit(name=f"through the upgrade {number}") for number in range(6)]
    eventually(lambda: any(stack.lab.get(job_id)["status"] == "running" for job_id in ids))
    stack.compose("up", "--detach", "--scale", "worker=3")
    assert not old & {one["Id"] for one in stack.containers()}
    assert {stack.weights(job_id) for job_id in ids} == {stack.undisturbed}
    states = [
        event["data"]["status"] for job_id in ids for event in stack.lab.events(job_id) if event["type"] == "status"
    ]
    interrupted = states.count("running") - len(ids)
    assert interrupted > 0
    say(f"{interrupted} jobs were training when their workers were replaced")


def test_a_backup_is_restored_into_an_empty_service(stack: Stack, tmp_path: Path) -> None:
    jobs = [job["id"] for job in stack.lab.list()]
    results = {job_id: stack.lab.results(job_id) for job_id in jobs}
    dump = stack.compose(
        "exec", "-T", "--user", "postgres", "postgres", "pg_dump", "-U", "creditlab", "-Fc", "creditlab"
    )
    data = stack.compose("exec", "-T", "api", "tar", "-C", "/var/lib/creditlab", "-cz", ".")
    stack.compose("down", "--volumes")
    stack.up()
    stack.compose("stop", "worker")
    restore = ("pg_restore", "-U", "creditlab", "-d", "creditlab", "--clean", "--if-exists", "--single-transaction")
    stack.compose("exec", "-T", "--user", "postgres", "postgres", *restore, stdin=dump)
    stack.compose("exec", "-T", "api", "tar", "-C", "/var/lib/creditlab", "-xz", stdin=data)
    stack.compose("up", "--detach")
    assert {job["id"]: stack.lab.results(job["id"]) for job in stack.lab.list()} == results
    stack.lab.download(jobs[0], "model.safetensors", tmp_path / "weights")
    assert stack.weights(stack.submit(name="after the restoration")) == stack.undisturbed


def test_no_secret_is_where_others_look(stack: Stack) -> None:
    secrets = {re.sub("requirepass ", "", file.read_text().strip()) for file in (stack.folder / "secrets").iterdir()}
    words = [secret.encode() for secret in secrets if "://" not in secret] + [stack.key.encode()]
    assert len(words) >= 5
    places = {"history": run("docker", "history", "--no-trunc", IMAGE)}
    for one in stack.containers():
        name = one["Name"]
        places[f"inspect {name}"] = json.dumps(one).encode()
        logs = subprocess.run(["docker", "logs", one["Id"]], capture_output=True, check=True)
        places[f"logs {name}"] = logs.stdout + logs.stderr
        if one["State"]["Running"]:
            places[f"processes {name}"] = run("docker", "top", one["Id"], "-eo", "pid,args")
    assert not [place for place, text in places.items() for word in words if word in text]
    assert not any(word in piece for piece in layers() for word in words)
