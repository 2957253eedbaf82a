"""The gate: what a token costs the server's processes, as a multiple of the floor.

    overhead = CPU seconds of all server processes per token / (raw verify + raw sign)

Both are measured in this run; the baseline in `baseline.json` is a ratio, so another machine may
be slower or faster. A regression beyond the noise fails. `--save` writes a new baseline.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.server import Round, one_round, serving

_BASELINE = Path(__file__).with_name("baseline.json")
_NOISE = 1.30  # of the baseline: what neighbours on a shared machine have been seen to do
_ROUNDS = 5


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
    with TemporaryDirectory() as name, serving(Path(name), bits) as served:
        rounds = [one_round(served, bits) for _ in range(_ROUNDS + 1)]
    for one in rounds:
        print(_told(one), flush=True)
    return statistics.median(one.overhead for one in rounds[1:])


def _told(one: Round) -> str:
    return (
        f"  floor {one.floor * 1e6:.0f} us, token {one.cpu * 1e6:.0f} us, "
        f"overhead {one.overhead:.2f}, {one.loaded.tokens / one.loaded.seconds:.0f}/s, "
        f"p99 {one.latency(0.99) * 1e3:.0f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
