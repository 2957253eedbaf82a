"""The circuit as a table of what happened, at which second, and whether one may ask then."""

from typing import Final

import pytest

from maskinporten.domain.circuit import FIRST_PAUSE, MAX_PAUSE, TOLERANCE, Circuit


def after(*events: tuple[str, float]) -> Circuit:
    """The circuit after these, each question asked and settled before the next."""
    circuit = Circuit()
    for what, now in events:
        circuit = circuit.admitted()
        trial = circuit.trial
        if what == "failed":
            circuit = circuit.failed(now, trial)
        elif what == "busy":
            circuit = circuit.failed(now, trial, at_least=10)
        else:
            circuit = circuit.answered(trial)
    return circuit


DOWN: Final = (("failed", 0.0),) * TOLERANCE

TABLE = [
    pytest.param((), 0, True, id="new"),
    pytest.param(DOWN[1:], 0, True, id="one failure fewer than tolerated"),
    pytest.param(DOWN, 0, False, id="opened"),
    pytest.param((*DOWN[1:], ("answered", 0), ("failed", 0)), 0, True, id="not in a row"),
    pytest.param(DOWN, FIRST_PAUSE - 0.001, False, id="just before the pause is over"),
    pytest.param(DOWN, FIRST_PAUSE, True, id="the pause is over"),
    pytest.param((*DOWN, ("failed", 1)), 2.999, False, id="the second pause is twice as long"),
    pytest.param((*DOWN, ("failed", 1)), 3, True, id="and ends"),
    pytest.param((*DOWN, ("answered", 1)), 1, True, id="a good trial closes it"),
    pytest.param((*DOWN, ("answered", 1), ("failed", 1)), 1, True, id="and forgets the failures"),
    pytest.param((("busy", 0),), 9.999, False, id="told to stay away"),
    pytest.param((("busy", 0),), 10, True, id="as long as told"),
    pytest.param((*DOWN, *((("failed", 100),) * 20)), 100 + MAX_PAUSE, True, id="no longer pause"),
]


@pytest.mark.parametrize(("events", "now", "admitted"), TABLE)
def test_circuit(events: tuple[tuple[str, float], ...], now: float, admitted: bool) -> None:  # noqa: FBT001
    """Time is an argument."""
    assert after(*events).admits(now) is admitted


def test_one_trial_at_a_time() -> None:
    """A crowd that waited does not fall upon one who has just come back."""
    circuit = after(*DOWN).admitted()

    assert not circuit.admits(FIRST_PAUSE + 60)


def test_what_was_begun_before_tells_nothing_about_the_trial() -> None:
    """A late success does not close the circuit, a late failure does not lengthen the pause."""
    opened = after(*DOWN)
    trying = opened.admitted()

    assert opened.answered(0) == opened
    assert opened.failed(0.5, 0) == opened
    assert trying.answered(trying.trial - 1) == trying
    assert trying.failed(5, trying.trial - 1) == trying
    assert not trying.answered(trying.trial).is_open
    again = trying.failed(5, trying.trial)
    assert again.answered(trying.trial) == again, "the outcome of a trial that is over"
