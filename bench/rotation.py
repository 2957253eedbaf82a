"""Does making a key slow anyone down? p99 of tokens while keys are made, against p99 without.

Far harsher than rotation itself: keys are made without a pause, where a real server makes one in
months. Rounds with and without alternate in one run, so that only the ratio says something; and it
is held to a loose bound, for a shared machine moves a p99 by itself.
"""

import asyncio
import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.server import Served, one_round, serving
from maskinporten.app import Application, Services
from maskinporten.commands.serve import run_server
from maskinporten.settings import Settings

_FLAG: Final = "BENCH_MAKING"  # the variable with the file that is there while keys are made
_LOOSE: Final = 6.0  # times: what would mean that a key is made on the token line itself
_ROUNDS: Final = 5
_GRANTS: Final = 500
_CONNECTIONS: Final = 2  # a server with room: under overload everything waits for everything


class _Making(Application):
    def open(self, services: Services) -> None:
        super().open(services)
        self._loop = asyncio.create_task(self._make(services))

    async def _make(self, services: Services) -> None:
        flag = Path(os.environ[_FLAG])
        while True:
            if await asyncio.to_thread(flag.exists):
                await services.rotation.make_key()
            else:
                await asyncio.sleep(0.02)


def create() -> Application:
    """The application of the server under load."""
    return _Making(Settings.from_environ())


def main() -> int:
    """Print the figures; 1 where making keys stands in the way of tokens."""
    with TemporaryDirectory() as name:
        flag = Path(name) / "making"
        making = {_FLAG: str(flag)}
        with serving(Path(name), 3072, module="bench.rotation", further=making) as served:
            _p99(served)
            ratios = [_ratio(served, flag) for _ in range(_ROUNDS)]
    ratio = statistics.median(ratios)
    print(f"rotation: p99 while keys are made is {ratio:.2f} of p99 without")
    return int(ratio > _LOOSE)


def _ratio(served: Served, flag: Path) -> float:
    without = _p99(served)
    flag.touch()
    time.sleep(0.1)
    during = _p99(served)
    flag.unlink()
    time.sleep(1)  # the last key is finished
    print(f"  p99 {without * 1e3:.1f} ms, while keys are made {during * 1e3:.1f} ms", flush=True)
    return during / without


def _p99(served: Served) -> float:
    return one_round(served, 3072, _GRANTS, _CONNECTIONS).latency(0.99)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        run_server(Settings.from_environ(), "bench.rotation:create")
    else:
        sys.exit(main())
