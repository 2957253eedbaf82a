"""The gate: what a token costs the server's processes, as a multiple of the floor.

    overhead = CPU seconds of all server processes per token / (raw verify + raw sign)

Both are measured in this run; the baseline in `baseline.json` is a ratio, so another machine may
be slower or faster. A regression beyond the noise fails. `--save` writes a new baseline.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from bench.floor import floor
from bench.load import load
from maskinporten.administration import administer
from maskinporten.app import open_services
from maskinporten.domain.manifest import plan
from maskinporten.settings import Environment, Secret, Settings
from tests.world import assertion, document

_BASELINE = Path(__file__).with_name("baseline.json")
_NOISE = 1.30  # of the baseline: what neighbours on a shared machine have been seen to do
_ROUNDS = 5
_GRANTS = 400  # in a round
PORT = 18080
ISSUER = f"http://127.0.0.1:{PORT}/"


def main() -> int:
    """Measure, compare, say what was found; 1 for a regression."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--save", action="store_true", help="write the baseline")
    save = arguments.parse_args().save
    if not save:
        steps = [sys.executable, "-m", "pytest", "-q", "bench", "--benchmark-enable"]
        shown = ["--benchmark-columns=median,iqr,rounds", "--benchmark-sort=fullname"]
        subprocess.run([*steps, *shown], check=True)
    found = {"rsa3072": measure(3072)}
    if save:
        _BASELINE.write_text(json.dumps(found, indent=2) + "\n")
        return 0
    baseline = json.loads(_BASELINE.read_text())
    for name, overhead in found.items():
        limit = baseline[name] * _NOISE
        verdict = "ok" if overhead <= limit else "REGRESSION"
        print(f"{name}: overhead {overhead:.2f}, baseline {baseline[name]:.2f}: {verdict}")
        if overhead > limit:
            print(f"  {overhead / baseline[name] - 1:.0%} above the baseline; the steps are above")
            return 1
    return 0


def measure(bits: int) -> float:
    """The median overhead of some rounds against a server with one worker and everything on."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        environ = prepare(folder, bits)
        command = [sys.executable, "-m", "maskinporten", "serve"]
        with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as server:
            try:
                wait_until_ready()
                overheads = [_round(server.pid, bits) for _ in range(_ROUNDS + 1)]
            finally:
                server.terminate()
    return statistics.median(overheads[1:])


def _round(pid: int, bits: int) -> float:
    now = int(time.time())
    grants = [assertion(aud=ISSUER, iat=now, exp=now + 110) for _ in range(_GRANTS)]
    base = floor(bits)
    before = _cpu_seconds(pid)
    loaded = asyncio.run(load("127.0.0.1", PORT, grants))
    spent = _cpu_seconds(pid) - before
    assert loaded.others == 0, loaded.others
    overhead = spent / loaded.tokens / base
    p99 = loaded.latencies[int(len(loaded.latencies) * 0.99)]
    print(
        f"  floor {base * 1e6:.0f} us, token {spent / loaded.tokens * 1e6:.0f} us, "
        f"overhead {overhead:.2f}, {loaded.tokens / loaded.seconds:.0f}/s, p99 {p99 * 1e3:.0f} ms",
        flush=True,
    )
    return overhead


def prepare(folder: Path, bits: int) -> dict[str, str]:
    """A registry in that folder; the environment of a server on it."""
    settings = Settings(
        issuer=ISSUER,
        database_url=f"sqlite:///{folder / 'registry.db'}",
        key_encryption_key=Secret(bytes(32)),
        environment=Environment.TEST,
        audit_log=folder / "audit.jsonl",
        signing_key_bits=bits,
    )

    async def fill() -> None:
        async with open_services(settings) as services:
            now = int(time.time())
            await administer(
                services.store,
                services.replica,
                lambda registry: plan(document(), registry, now),
                {"kind": "operator"},
                "bench",
                now,
            )

    asyncio.run(fill())
    return {
        **os.environ,
        "MASKINPORTEN_ISSUER": ISSUER,
        "MASKINPORTEN_PORT": str(PORT),
        "MASKINPORTEN_WORKERS": "1",
        "MASKINPORTEN_DRAIN": "0",
        "MASKINPORTEN_DATABASE_URL": settings.database_url,
        "MASKINPORTEN_KEY_ENCRYPTION_KEY": "A" * 43 + "=",
        "MASKINPORTEN_ENVIRONMENT": "test",
        "MASKINPORTEN_AUDIT_LOG": str(folder / "audit.jsonl"),
        "MASKINPORTEN_SIGNING_KEY_BITS": str(bits),
    }


def wait_until_ready() -> None:
    """Until the server answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{ISSUER}readyz", timeout=1).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and all that came of it."""
    ticks = 0
    for process in [pid, *_descendants(pid)]:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *_descendants(child)]
    return found


if __name__ == "__main__":
    sys.exit(main())
