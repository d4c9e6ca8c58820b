"""One training by several processes: each learns from its share of every batch, and means are taken over all shares.

Every process holds the same net, rule and optimizer, and makes the same step:

    g = Σ_r (N_r / N) g_r        g_r: what process r found on its N_r samples, as if they were a batch of their own

Where a rule's equation has a mean over the batch inside (E[s hᵀ], a power, a similarity of all pairs), the rule asks
its group for it. The first process leads: it starts the others, tells of the run, and ends them.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from credit import spec
from credit.events import RunError

START_SECONDS = 300.0
"""In which a process is there and has its data."""
PATIENCE_SECONDS = 300.0
"""Where another process says nothing for so long in the midst of a step, it has hung."""
LEADER_PATIENCE_SECONDS = 7 * 86_400.0
"""The first process may take its time between steps: it evaluates, probes and waits for those whom it tells."""
DYING_SECONDS = 5.0
LOOPBACK = {"linux": "lo", "darwin": "lo0"}


@dataclass(frozen=True)
class Order:
    """What another process is asked to train."""

    chosen: spec.Run
    datasets: Path | None
    cache: Path
    resume: tuple[Path, str] | None
    """A checkpoint and its SHA-256."""
    rank: int = 0
    meeting: Path = Path()
    """The file by which the processes find each other."""


class Group:
    """A process that trains alone: every batch is its own, nothing costs anything and no number changes."""

    rank, size = 0, 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever was started has ended."""

    def __deepcopy__(self, _: Any) -> Self:
        """Modules that know it are copied, and the copies know the same."""
        return self

    def meet(self, order: Order, device: torch.device) -> None:
        """Wait until all processes are ready to train. Raises RunError."""

    def share(self, index_N: Tensor) -> Tensor:
        """The samples of the next batch that are this process's."""
        return index_N

    def samples(self, n: int) -> int:
        """Size of the batch of which this process has n samples."""
        return n

    def own(self, rows_ND: Tensor) -> Tensor:
        """This process's rows of what has a row per sample of the batch."""
        return rows_ND

    def whole(self, rows_ND: Tensor) -> Tensor:
        """The rows of all processes; the mean of the processes' gradients is that of the batch."""
        return rows_ND

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the batch of what is a mean over a share; its gradient is that of the share."""
        return value

    def means(self, values: Sequence[Tensor]) -> Sequence[Tensor]:
        """The same for many at once, without gradients."""
        return values

    def total(self, count: int) -> int:
        """The sum over the processes."""
        return count


ALONE = Group()


class Team(Group):
    """One of several processes."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.start, self.stop, self.batch = 0, 0, 0

    def __exit__(self, *_: object) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    def join(self, meeting: Path, device: torch.device, patience_seconds: float) -> None:
        """Find the others by a file. They talk over the loopback device; no other address hears them."""
        if interface := LOOPBACK.get(sys.platform):
            os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = interface
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self.device = device
        try:
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                init_method=meeting.as_uri(),
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=patience_seconds),
            )
        except RuntimeError as error:
            raise self.broken() from error

    def share(self, index_N: Tensor) -> Tensor:
        shares = index_N.tensor_split(self.size)
        self.start = sum(len(share) for share in shares[: self.rank])
        self.stop, self.batch = self.start + len(shares[self.rank]), len(index_N)
        return shares[self.rank]

    def samples(self, n: int) -> int:
        assert n == self.stop - self.start
        return self.batch

    def own(self, rows_ND: Tensor) -> Tensor:
        return rows_ND[self.start : self.stop]

    def whole(self, rows_ND: Tensor) -> Tensor:
        whole_ND = rows_ND.new_zeros(self.batch, *rows_ND.shape[1:])
        whole_ND[self.start : self.stop] = rows_ND.detach()
        self._add(whole_ND)
        if not rows_ND.requires_grad:
            return whole_ND
        # every process has the gradient of the whole, and only through its own rows: N/N_r of them make the mean
        own_ND = rows_ND.detach() + (rows_ND - rows_ND.detach()) * (self.batch / (self.stop - self.start))
        return torch.cat((whole_ND[: self.start], own_ND, whole_ND[self.stop :]))

    def mean(self, value: Tensor) -> Tensor:
        (mean,) = self.means([value])
        return mean + (value - value.detach())

    def means(self, values: Sequence[Tensor]) -> Sequence[Tensor]:
        flat = torch.cat([value.detach().flatten() for value in values])
        flat *= (self.stop - self.start) / self.batch
        self._add(flat)
        parts = flat.split([value.numel() for value in values])
        return [part.view_as(value).to(value.dtype) for part, value in zip(parts, values, strict=True)]

    def total(self, count: int) -> int:
        sum_ = torch.tensor(count, device=self.device)
        self._add(sum_)
        return int(sum_)

    def _add(self, tensor: Tensor) -> None:
        """Its sum over the processes, in its place, the same bits in all of them."""
        try:
            dist.all_reduce(tensor)
        except RuntimeError as error:
            raise self.broken() from error

    def broken(self) -> Exception:
        """What to raise where the others do not answer any more."""
        raise NotImplementedError


class LeaderGoneError(Exception):
    """The first process does not answer any more."""


class Follower(Team):
    """A process that was started to help; where the leader is gone, there is nobody to tell."""

    def __init__(self, pipe: Connection, order: Order) -> None:
        super().__init__(order.rank, order.chosen.training.devices)
        self.pipe, self.meeting = pipe, order.meeting

    def meet(self, order: Order, device: torch.device) -> None:  # noqa: ARG002  (it is the one it came with)
        self.pipe.send(None)
        self.join(self.meeting, device, LEADER_PATIENCE_SECONDS)
        self.total(0)

    def broken(self) -> Exception:
        return LeaderGoneError()


class Leader(Team):
    """The process that tells of the run, and has started the others and ends them."""

    def __init__(self, size: int) -> None:
        super().__init__(0, size)
        self.pipes: list[Connection] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            while len(self.pipes) < self.size - 1:
                self._start()
        except OSError as error:
            self.__exit__()
            raise RunError("storage_unavailable", f"no process could be started: {error}") from error
        return self

    def _start(self) -> None:
        """A fresh interpreter: a CUDA context and a pool of threads do not survive a fork."""
        ours, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "credit.follower", str(theirs.fileno())]
        with theirs:
            self.processes.append(subprocess.Popen(command, pass_fds=[theirs.fileno()]))  # noqa: S603  (our own)
        self.pipes.append(ours)

    def __exit__(self, *_: object) -> None:
        for process, pipe in zip(self.processes, self.pipes, strict=True):
            process.kill()
            process.wait()
            pipe.close()
        super().__exit__()

    def meet(self, order: Order, device: torch.device) -> None:
        with tempfile.TemporaryDirectory(prefix="creditlab-") as folder:
            meeting = Path(folder) / "meeting"
            for rank, pipe in enumerate(self.pipes, start=1):
                with suppress(OSError):  # it has ended; why is asked below
                    pipe.send(replace(order, rank=rank, meeting=meeting))
            for rank, pipe in enumerate(self.pipes, start=1):
                self._hear(rank, pipe)
            self.join(meeting, device, PATIENCE_SECONDS)
            self.total(0)  # all have found each other; nobody looks into the file again

    def _hear(self, rank: int, pipe: Connection) -> None:
        """Wait for a process to be ready. Raises RunError."""
        try:
            word = pipe.recv() if pipe.poll(START_SECONDS) else ("killed", f"was not ready in {START_SECONDS:g} s")
        except (EOFError, OSError):
            raise self.broken() from None
        if word:
            raise RunError(word[0], f"process {rank + 1} of {self.size}: {word[1]}")

    def broken(self) -> Exception:
        """The word of a process that failed; else the signal that ended one; else any end."""
        wait(self.pipes, DYING_SECONDS)
        ends: list[tuple[int, str, str]] = []
        for rank, (pipe, process) in enumerate(zip(self.pipes, self.processes, strict=True), start=1):
            who = f"process {rank + 1} of {self.size}"
            with suppress(EOFError, OSError):
                while pipe.poll(0):
                    if word := pipe.recv():
                        ends.append((0, word[0], f"{who}: {word[1]}"))
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(DYING_SECONDS if pipe in wait([pipe], 0) else 0)
                how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
                ends.append((1 if status < 0 else 2, "killed", f"{who} {how}"))
        silent = (3, "killed", f"one of {self.size} processes has not answered for {PATIENCE_SECONDS:g} s")
        _, code, message = min([*ends, silent])
        return RunError(code, message)


def gathered(devices: int) -> Group:
    """The group of a run on so many devices; entering it starts the other processes, leaving it ends them."""
    return Leader(devices) if devices > 1 else ALONE
