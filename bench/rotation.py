"""Does making a key slow anyone down? p99 of tokens while keys are made, against p99 without.

Far harsher than rotation itself: keys are made without a pause, where a real server makes one in
months. Rounds with and without alternate in one run, so that only the ratio says something; and it
is held to a loose bound, for a shared machine moves a p99 by itself.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.gate import ISSUER, PORT, prepare, wait_until_ready
from bench.load import load
from maskinporten.app import Application, Services
from maskinporten.commands.serve import run_server
from maskinporten.settings import Settings
from tests.world import assertion

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
        environ = {**prepare(Path(name), 3072), _FLAG: str(flag)}
        command = [sys.executable, "-m", "bench.rotation", "serve"]
        with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as server:
            try:
                wait_until_ready()
                _p99()
                ratios = [_ratio(flag) for _ in range(_ROUNDS)]
            finally:
                server.terminate()
    ratio = statistics.median(ratios)
    print(f"rotation: p99 while keys are made is {ratio:.2f} of p99 without")
    return int(ratio > _LOOSE)


def _ratio(flag: Path) -> float:
    without = _p99()
    flag.touch()
    time.sleep(0.1)
    during = _p99()
    flag.unlink()
    time.sleep(1)  # the last key is finished
    print(f"  p99 {without * 1e3:.1f} ms, while keys are made {during * 1e3:.1f} ms", flush=True)
    return during / without


def _p99() -> float:
    now = int(time.time())
    grants = [assertion(aud=ISSUER, iat=now, exp=now + 110) for _ in range(_GRANTS)]
    loaded = asyncio.run(load("127.0.0.1", PORT, grants, _CONNECTIONS))
    assert loaded.others == 0, loaded.others
    return loaded.latencies[int(len(loaded.latencies) * 0.99)]


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        run_server(Settings.from_environ(), "bench.rotation:create")
    else:
        sys.exit(main())
