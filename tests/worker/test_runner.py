"""What the training process says of itself, without a supervisor."""

from multiprocessing import Pipe

from credit.events import Fetching, from_json
from worker.runner import Fetched


def test_a_download_is_told_when_it_begins_and_when_it_is_complete():
    here, there = Pipe(duplex=False)
    fetched = Fetched(lambda event: there.send_bytes(event.to_json()))
    for received in range(0, 10_001, 100):
        fetched(received, 10_000)
    there.close()
    told = []
    while True:
        try:
            told.append(from_json(here.recv_bytes()))
        except EOFError:
            break
    assert told[0] == Fetching(received=0, size=10_000)
    assert told[-1] == Fetching(received=10_000, size=10_000)
    assert len(told) < 100
