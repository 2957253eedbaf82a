"""What it costs that a grant is used once, when two data centres issue tokens.

A simulation, for DESIGN.md, "Past one cluster": callers arrive at either site at random, as DNS
sends them; spent grants are written in groups, one insert under way at a time, as `replay.py` does.
Three ways, by what a token waits for and by how long a stolen grant may be used at both sites:

    shared   one database, in one site; the other writes across
    apart    each site writes at home, and sends what it spent to the other afterwards
    homes    each client has a home site, to which its requests are passed on

    python -m bench.sites
"""

import random
import statistics
from collections.abc import Sequence
from typing import Final, NamedTuple

_RATE: Final = 500.0  # tokens a second at each site
_REQUESTS: Final = 20_000
_COMMIT: Final = 0.001  # seconds of one group insert where the database stands
_EXCHANGE: Final = 0.05  # seconds between two shipments of what was spent
_DISTANCES: Final = (0.001, 0.005, 0.02)  # seconds there and back


class Outcome(NamedTuple):
    """Seconds that a token waits for its grant to be spent, and that a grant may be used twice."""

    p50: float
    p99: float
    window: float


def waits(arrivals: Sequence[float], insert: float) -> list[float]:
    """For each arrival (seconds, rising): until the insert that carries it is done.

    One insert is under way at a time; whoever comes meanwhile shares the next.
    """
    found: list[float] = []
    free = 0.0
    place = 0
    while place < len(arrivals):
        begins = max(free, arrivals[place])
        free = begins + insert
        end = place
        while end < len(arrivals) and arrivals[end] <= begins:
            found.append(free - arrivals[end])
            end += 1
        place = end
    return found


def poisson(rate: float, number: int, chance: random.Random) -> list[float]:
    """Moments of arrival, in seconds."""
    now = 0.0
    moments = []
    for _ in range(number):
        now += chance.expovariate(rate)
        moments.append(now)
    return moments


def shared(distance: float, chance: random.Random) -> Outcome:
    """Half of the tokens are written at home, half across; a grant meets itself always."""
    near = waits(poisson(_RATE, _REQUESTS, chance), _COMMIT)
    far = waits(poisson(_RATE, _REQUESTS, chance), _COMMIT + distance)
    return _outcome(near + far, 0.0)


def apart(distance: float, chance: random.Random) -> Outcome:
    """Nobody waits for the other site; it hears after the shipment and half the way."""
    found = waits(poisson(_RATE, _REQUESTS, chance), _COMMIT)
    return _outcome(found, _EXCHANGE + distance / 2 + _COMMIT)


def homes(distance: float, chance: random.Random) -> Outcome:
    """Half of the requests come to the wrong site, and go there and back once."""
    found = waits(poisson(_RATE, _REQUESTS, chance), _COMMIT)
    return _outcome([w + distance * (chance.random() < 0.5) for w in found], 0.0)


def _outcome(found: list[float], window: float) -> Outcome:
    cuts = statistics.quantiles(found, n=100)
    return Outcome(cuts[49], cuts[98], window)


def main() -> None:
    """Print the table."""
    print("| There and back | Way | p50 | p99 | Window of double use |\n|---|---|---|---|---|")
    for distance in _DISTANCES:
        for way in (shared, apart, homes):
            found = way(distance, random.Random(1))  # noqa: S311 - a simulation
            print(
                f"| {distance * 1e3:.0f} ms | {way.__name__} | {found.p50 * 1e3:.1f} ms "
                f"| {found.p99 * 1e3:.1f} ms | {found.window * 1e3:.0f} ms |"
            )


if __name__ == "__main__":
    main()
