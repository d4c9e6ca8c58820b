"""``python -m credit.follower FD``: a process that trains beside the first one, on other samples of the same batches.

Started by ``credit.parallel.Leader`` as a fresh interpreter, so no CUDA context and no thread pool is ever forked. What
it is to do comes through the pipe FD. It has nothing to say but that it is ready, or why it failed, and it ends with
the first process, however that ends.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection

from credit import train
from credit.events import RunError
from credit.parallel import Follower, LeaderGoneError, Order

PR_SET_PDEATHSIG = 1
LEADER_GONE = 75


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends this one
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    pipe = Connection(int(sys.argv[1]))
    try:
        order: Order = pipe.recv()
    except EOFError:
        sys.exit(LEADER_GONE)
    threading.Thread(target=watch, args=(pipe,), name="watch", daemon=True).start()
    try:
        with Follower(pipe, order) as group:
            train.follow(order, group)
    except LeaderGoneError:
        sys.exit(LEADER_GONE)
    except RunError as error:
        pipe.send((error.code, str(error)))
    except MemoryError:
        pipe.send(("out_of_memory", "the machine's memory does not suffice"))
    except Exception as error:
        pipe.send(("internal_error", f"{type(error).__name__}: {error}"))
        raise


def watch(pipe: Connection) -> None:
    """End this process where the first one has gone: it says nothing more, so the pipe ends then."""
    with contextlib.suppress(EOFError, OSError):
        pipe.poll(None)
    os._exit(LEADER_GONE)


if __name__ == "__main__":
    main()
