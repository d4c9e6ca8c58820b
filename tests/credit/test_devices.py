"""One training by two processes comes to what one process comes to."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from credit.events import Aligned, Evaluated, Progress
from credit.parallel import Team
from tests.credit.sharing import cases, trained

ROOT = Path(__file__).parent.parent.parent
TOLERANCE = 1e-5
CASES = cases()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Every case trained by this process and another: what was said, this one's tensors, the other's."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "tests.credit.sharing", str(folder / "meeting"), str(folder)]
    with subprocess.Popen(command, cwd=ROOT) as other:
        try:
            with Team(0, 2) as team:
                team.join(folder / "meeting", torch.device("cpu"), 60)
                found = {name: trained(chosen, folder, group=team) for name, chosen in CASES.items()}
            assert other.wait(60) == 0
        finally:
            other.kill()
    return {
        name: (events, state, load_file(folder / f"{name}.safetensors")) for name, (events, state) in found.items()
    }


def values(events, kind):
    """Every number that events of a kind tell, by series, layer and step."""
    told = [point for event in events if isinstance(event, kind) for point in event.points()]
    return {(p.series, p.layer, p.step): p.value for p in told}


def off(one, two):
    """The greatest distance of two tensors of the same name, relative to the norm of the first."""
    assert one.keys() == two.keys()
    return max(float((one[k] - two[k]).norm() / one[k].norm().clamp_min(1e-6)) for k in one if one[k].is_floating_point())


@pytest.mark.parametrize("name", CASES)
def test_two_processes_come_to_what_one_comes_to(name, together, tmp_path):
    events, state, others = together[name]
    alone, expected = trained(CASES[name], tmp_path)
    assert off(expected, state) < TOLERANCE
    assert all(torch.equal(state[key], others[key]) for key in state)
    losses = values(alone, Progress)
    assert len(losses) == 20
    assert values(events, Progress) == pytest.approx(losses, rel=TOLERANCE)
    assert values(events, Evaluated) == pytest.approx(values(alone, Evaluated), rel=TOLERANCE)
    cosines = values(alone, Aligned)
    assert {key: value is None for key, value in values(events, Aligned).items()} == {
        key: value is None for key, value in cosines.items()
    }
    assert len(cosines) > 20
