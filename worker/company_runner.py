"""The training process of several attempts: their runs are members of one computation (``credit.members``).

Like ``worker.runner``, whose words it says and hears; each of them is about one attempt, which has a place here.
"""

import json
import os
import threading
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from credit import artifacts
from credit.events import Checkpointed, Event, Failed, Finished, RunError
from credit.members import run_members
from lab import logs, specs
from worker.company import PLACE
from worker.runner import Cadence, Fetched, cadence_of, die_with_the_parent, failures, storage

Said = Iterator[tuple[int, Event]]
"""(place of an attempt, what is said of it)"""


def main(pipe: Connection, order: dict[str, Any]) -> None:
    """Train as ordered by so many supervisors; those who have left by then are not waited for."""
    die_with_the_parent()
    logs.configure()
    supervisors = Supervisors(pipe, order["size"], order["lease_seconds"])
    places = supervisors.gathered()
    if not places:
        return
    about = {name: supervisors.orders[places[0]][name] for name in ("job_id", "trace_id")}
    with logs.bound(**about, members=len(places)):
        train_and_tell(supervisors, places)


def train_and_tell(supervisors: "Supervisors", places: list[int]) -> None:
    with failures(partial(supervisors.tell_all, places)):
        for place, event in events(supervisors, places):
            supervisors.tell(place, event)
            if isinstance(event, Checkpointed) and supervisors.cadences[place].stopping:
                supervisors.dismiss(place)


def events(supervisors: "Supervisors", places: list[int]) -> Said:
    """The events of all runs; that one has finished is told when all of its files are written."""
    orders = [supervisors.orders[place] for place in places]
    cadences = [supervisors.cadences[place] for place in places]
    runs = [specs.from_dict(order["spec"]) for order in orders]
    outs = [Path(order["folder"]) / "out" for order in orders]
    datasets, cache = orders[0]["datasets"], Path(orders[0]["cache"])
    told: list[list[Event]] = [[] for _ in places]
    with storage():
        for out in outs:
            out.mkdir(parents=True, exist_ok=True)
    trained = run_members(
        runs,
        datasets=Path(datasets) if datasets else None,
        cache=cache,
        outs=outs,
        progress=Fetched(partial(supervisors.tell_all, places)),
        save=lambda m: cadences[m](),
        left=Left(supervisors, places),
    )
    for m, event in trained:
        told[m].append(event)
        if isinstance(event, Checkpointed):
            cadences[m].took(event.seconds * len(places))  # all of them are written then
        yield places[m], written(outs[m], runs[m], told[m]) if isinstance(event, Finished) else event


def written(out: Path, run: Any, told: list[Event]) -> Event:
    """The last event, once the files are written; if they cannot be, that is the last one."""
    try:
        with storage():
            artifacts.write(out, run, told)
    except RunError as error:
        return Failed(code=error.code, message=str(error))
    return told[-1]


class Supervisors:
    """What is ordered at each place, and at which of them nobody listens any more."""

    def __init__(self, pipe: Connection, size: int, lease_seconds: float) -> None:
        self.pipe, self.size, self.lease_seconds = pipe, size, lease_seconds
        self.orders: dict[int, dict[str, Any]] = {}
        self.cadences: dict[int, Cadence] = {}
        self.left: set[int] = set()
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, name="watch", daemon=True).start()

    def gathered(self) -> list[int]:
        """The places where something is ordered, once that is known of all."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.orders.keys() | self.left) == self.size)
            return sorted(self.orders.keys() - self.left)

    def tell(self, place: int, event: Event) -> None:
        if place not in self.left:
            self.pipe.send_bytes(PLACE.pack(place) + event.to_json())

    def tell_all(self, places: Iterable[int], event: Event) -> None:
        for place in places:
            self.tell(place, event)

    def dismiss(self, place: int) -> None:
        """No more will be said there."""
        self.left.add(place)
        self.pipe.send_bytes(PLACE.pack(place))

    def _listen(self) -> None:
        """Hear the supervisors; this process ends when none has been heard of for a lease."""
        try:
            while self.pipe.poll(self.lease_seconds):
                self._heed(json.loads(self.pipe.recv_bytes()))
        except (EOFError, OSError):
            pass
        os._exit(75)

    def _heed(self, said: dict[str, Any]) -> None:
        place = said["place"]
        with self._changed:
            match said["word"]:
                case "order":
                    self.orders[place], self.cadences[place] = said["order"], cadence_of(said["order"])
                case "stop":
                    self.cadences[place].stopping = True
                case "leave":
                    self.left.add(place)
            self._changed.notify_all()


@dataclass(frozen=True)
class Left(Container[int]):
    """The members of the computation at whose places nobody listens any more."""

    supervisors: Supervisors
    places: list[int]

    def __contains__(self, m: object) -> bool:
        assert isinstance(m, int)
        return self.places[m] in self.supervisors.left
