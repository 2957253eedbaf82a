"""The simulation behind "Past one cluster": its group commit does what ours does."""

import pytest

from bench.sites import waits


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        pytest.param([0.0], [2.0], id="alone: one insert"),
        pytest.param([0.0, 1.0], [2.0, 3.0], id="came meanwhile: waits for the next"),
        pytest.param([0.0, 1.0, 2.0], [2.0, 3.0, 2.0], id="both who wait share one"),
        pytest.param([0.0, 5.0], [2.0, 2.0], id="came later: nobody in the way"),
        pytest.param([], [], id="nobody"),
    ],
)
def test_one_insert_at_a_time_is_shared(arrivals: list[float], expected: list[float]) -> None:
    """Two seconds an insert; each waits until the one that carries it is done."""
    assert waits(arrivals, 2.0) == expected
