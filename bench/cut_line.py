"""What two data centres promise while the line between them is whole, and while it is cut.

    python -m bench.cut_line

The replay code is ours as it runs; the link between the sites is simulated, on a clock that jumps
from event to event, so that the figures are the same on every machine. Each grant is also sent to
the other site, at some moment within two seconds of the first: who counts two tokens, counts a
double use. `bench.sites` asks what the waiting costs under load; this asks who is
served, and who is fooled.
"""

import asyncio
import contextlib
import random
import selectors
import statistics
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol, cast

from maskinporten.errors import Refused, Unavailable
from maskinporten.metrics import Metrics
from maskinporten.replay import SpentGrants, WithoutDatabase
from maskinporten.spool import Spool
from maskinporten.store import Spending, Store

_INSERT: Final = 0.001  # seconds that a database takes for a batch
_GIVE_UP: Final = 5.0  # seconds that a driver waits for an answer
_RATE: Final = 200  # grants a second at each site
_GRANTS: Final = 2_000
_LIFE: Final = 120  # seconds
_SPREAD: Final = 2.0  # seconds within which the copy comes


class _Jumps(selectors.SelectSelector):
    """Waits for nobody: time moves to the next timer."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """What is ready now; otherwise it is later."""
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


def run_jumping(main: Callable[[], Any]) -> Any:
    """Run a coroutine in a world whose clock stands only while something happens."""
    jumps = _Jumps()

    class Loop(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return jumps.now

    with asyncio.Runner(loop_factory=lambda: Loop(jumps)) as runner:
        return runner.run(main())


@dataclass
class Link:
    """The line between two sites."""

    round_trip: float  # seconds
    up: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """It begins whole."""
        self.up.set()

    async def half(self) -> None:
        """One way. A cut line swallows what is sent, and the driver gives up on it."""
        if not self.up.is_set():
            await asyncio.sleep(_GIVE_UP)
            raise Unavailable("the line is cut")
        await asyncio.sleep(self.round_trip / 2)


class Spends(Protocol):
    """The one promise of a store that matters here."""

    async def spend_grants(self, grants: Sequence[Spending], now: int) -> frozenset[bytes]:
        """See `Store.spend_grants`."""
        ...


class Database:
    """A primary that does what it is told, in order."""

    def __init__(self) -> None:
        self.spent: set[bytes] = set()

    async def spend_grants(self, grants: Sequence[Spending], now: int) -> frozenset[bytes]:
        """See `Store.spend_grants`."""
        del now
        await asyncio.sleep(_INSERT)
        fresh = frozenset(grant.key for grant in grants) - self.spent
        self.spent |= fresh
        return fresh


@dataclass
class Far:
    """A database at the other end of the line."""

    database: Spends
    link: Link

    async def spend_grants(self, grants: Sequence[Spending], now: int) -> frozenset[bytes]:
        """See `Store.spend_grants`."""
        await self.link.half()
        fresh = await self.database.spend_grants(grants, now)
        await self.link.half()
        return fresh


@dataclass
class Mirrored:
    """A primary whose commit waits for its standby at the other site."""

    database: Database
    link: Link

    async def spend_grants(self, grants: Sequence[Spending], now: int) -> frozenset[bytes]:
        """See `Store.spend_grants`."""
        fresh = await self.database.spend_grants(grants, now)
        await self.link.half()
        await self.link.half()
        return fresh


@dataclass
class Telling:
    """A database of this site alone, which tells the other what it was told."""

    database: Database
    other: Database
    link: Link

    async def spend_grants(self, grants: Sequence[Spending], now: int) -> frozenset[bytes]:
        """See `Store.spend_grants`."""
        fresh = await self.database.spend_grants(grants, now)
        asyncio.get_running_loop().create_task(self._tell(fresh))
        return fresh

    async def _tell(self, keys: frozenset[bytes]) -> None:
        """As soon as the line lets it."""
        await self.link.up.wait()
        await self.link.half()
        self.other.spent |= keys


def one_database(link: Link) -> tuple[Spends, Spends]:
    """Both sites write to the first one's database; the second reads a replica."""
    primary = Database()
    return primary, Far(primary, link)


def mirrored(link: Link) -> tuple[Spends, Spends]:
    """The same, and no commit is done before the second site has it too."""
    primary = Mirrored(Database(), link)
    return primary, Far(primary, link)


def each_its_own(link: Link) -> tuple[Spends, Spends]:
    """Each site writes to its own database and tells the other afterwards."""
    first, second = Database(), Database()
    return Telling(first, second, link), Telling(second, first, link)


DESIGNS: Final = {
    "one database": one_database,
    "one, with a synchronous standby": mirrored,
    "one for each site, told afterwards": each_its_own,
}


@dataclass(frozen=True, slots=True)
class Found:
    """What became of it."""

    first: list[float]  # seconds that spending took at the first site
    second: list[float]
    doubles: list[float]  # for each double use, the seconds between the two requests
    unserved: int  # grants that nobody got a token for


@contextlib.asynccontextmanager
async def _site(store: Spends, folder: Path, mode: WithoutDatabase) -> AsyncIterator[SpentGrants]:
    metrics = Metrics(None, refusals=[], methods=[])
    spool = Spool(folder)
    loop = asyncio.get_running_loop()
    opened = SpentGrants(cast("Store", store), loop.time, metrics, spool, mode)
    try:
        yield opened
    finally:
        await opened.close()
        spool.close()
        metrics.close()


async def simulate(
    design: str,
    round_trip: float,
    *,
    cut: bool = False,
    mode: WithoutDatabase = WithoutDatabase.LOCAL,
) -> Found:
    """Every grant at both sites; `cut` takes the line away for the middle third."""
    chance = random.Random(7)  # noqa: S311 - the same figures every time
    link = Link(round_trip)
    sites = DESIGNS[design](link)
    seconds = _GRANTS / _RATE
    taken: tuple[list[float], list[float]] = ([], [])
    used: dict[int, list[float]] = {n: [] for n in range(_GRANTS)}
    loop = asyncio.get_running_loop()
    with TemporaryDirectory() as name:
        async with (
            _site(sites[0], Path(name, "0"), mode) as first,
            _site(sites[1], Path(name, "1"), mode) as second,
        ):

            async def ask(at: float, number: int, site: int) -> None:
                await asyncio.sleep(at)
                try:
                    spend = (first, second)[site].spend
                    await spend(number.to_bytes(32), int(at) + _LIFE)
                except (Refused, Unavailable):
                    return
                taken[site].append(loop.time() - at)
                used[number].append(at)

            async def cut_line() -> None:
                await asyncio.sleep(seconds / 3)
                if cut:
                    link.up.clear()
                await asyncio.sleep(seconds / 3)
                link.up.set()

            asks = []
            for number in range(_GRANTS):
                at, before = chance.uniform(0, seconds), chance.randrange(2)
                asks.append(ask(at, number, before))
                asks.append(ask(at + chance.uniform(0, _SPREAD), number, 1 - before))
            await asyncio.gather(cut_line(), *asks)
    doubles = [max(times) - min(times) for times in used.values() if len(times) > 1]
    return Found(*taken, doubles, sum(not times for times in used.values()))


def main() -> int:
    """The table of DESIGN.md."""
    print("| Design | ms between | ms for a spend, first / second site | double uses | within |")
    print("|---|---|---|---|---|")
    for design in DESIGNS:
        for round_trip in (0.002, 0.010, 0.030):
            _row(design, round_trip, cut=False)
    for design in DESIGNS:
        for mode in WithoutDatabase:
            _row(design, 0.010, cut=True, mode=mode)
    return 0


def _row(
    design: str, round_trip: float, *, cut: bool, mode: WithoutDatabase = WithoutDatabase.LOCAL
) -> None:
    found: Found = run_jumping(lambda: simulate(design, round_trip, cut=cut, mode=mode))
    medians = " / ".join(
        f"{statistics.median(taken) * 1e3:.1f}" for taken in (found.first, found.second)
    )
    within = f"{max(found.doubles) * 1e3:.0f} ms" if found.doubles else ""
    name = f"{design}, line cut, `{mode}`" if cut else design
    share = len(found.doubles) / _GRANTS
    unserved = f"; {found.unserved / _GRANTS:.1%} unserved" if found.unserved else ""
    print(f"| {name} | {round_trip * 1e3:.0f} | {medians} | {share:.1%}{unserved} | {within} |")


if __name__ == "__main__":
    sys.exit(main())
