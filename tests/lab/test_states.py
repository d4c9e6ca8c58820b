"""The table of states is complete, sound, and what the documentation says."""

from pathlib import Path

import pytest

from lab.states import CAUSE, EDGES, HELD, MEANING, TERMINAL, Event, State, document, targets


def test_the_documentation_is_generated_from_the_table():
    assert (Path(__file__).parents[2] / "docs" / "job-states.md").read_text() == document()


def test_every_state_and_event_is_explained_and_used():
    assert set(MEANING) == set(State)
    assert set(CAUSE) == set(Event) == {event for _, event in EDGES}
    assert set(EDGES.values()) == set(State)


@pytest.mark.parametrize("state", list(State))
def test_a_user_can_end_whatever_has_not_ended(state):
    if state in TERMINAL:
        assert (state, Event.CANCEL) not in EDGES
    elif state != State.CANCELLING:
        assert EDGES[state, Event.CANCEL] in {State.CANCELLED, State.CANCELLING}


@pytest.mark.parametrize("state", sorted(HELD))
def test_no_death_leaves_a_held_state_held(state):
    for event in (Event.FINISH, Event.FAIL, Event.LOSE, Event.PREEMPT):
        assert EDGES[state, event] not in HELD


def test_only_one_event_gives_a_lease():
    assert targets(Event.CLAIM) == {State.QUEUED: State.RUNNING}
    assert {event for (source, event), target in EDGES.items() if target in HELD and source not in HELD} == {
        Event.CLAIM
    }
