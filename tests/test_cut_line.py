"""Two data centres and the line between them: what DESIGN.md promises, by our own replay code."""

import pytest

from bench.cut_line import DESIGNS, Found, run_jumping, simulate
from maskinporten.replay import WithoutDatabase

ROUND_TRIP = 0.03  # seconds


@pytest.mark.parametrize("design", ["one database", "one, with a synchronous standby"])
def test_one_database_knows_no_double_use(design: str) -> None:
    """A copy of a grant that is sent to the other site is refused there, whenever it comes."""
    found: Found = run_jumping(lambda: simulate(design, ROUND_TRIP))

    assert not found.doubles
    assert found.unserved == 0
    assert min(found.second) >= ROUND_TRIP


def test_sites_that_tell_each_other_afterwards_can_be_raced() -> None:
    """Nobody waits, and a copy that is faster than the news gets a second token."""
    found: Found = run_jumping(lambda: simulate("one for each site, told afterwards", ROUND_TRIP))

    assert found.doubles
    assert max(found.doubles) < ROUND_TRIP
    assert max(found.second) < ROUND_TRIP


@pytest.mark.parametrize("design", DESIGNS)
def test_a_cut_line(design: str) -> None:
    """`local` goes on and can be raced, in every design."""
    found: Found = run_jumping(lambda: simulate(design, ROUND_TRIP, cut=True))

    assert found.doubles
    assert found.unserved == 0


def test_a_cut_line_with_refuse() -> None:
    """`refuse` at a site without its database: no double use, and some are not served there."""
    found: Found = run_jumping(
        lambda: simulate("one database", ROUND_TRIP, cut=True, mode=WithoutDatabase.REFUSE)
    )

    assert not found.doubles
    assert len(found.second) < len(found.first)
