"""Every metric, declared once, with closed sets of labels.

The workers of a node count into one small shared file, each into its own row, and whichever of
them is asked adds the rows up: a scrape sees the node, not a worker. A row is held by a lock on
its bytes, which the system frees when its worker dies; the next worker goes on counting in it.
"""

import fcntl
import mmap
import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

MAX_WORKERS: Final = 128
_LATENCY_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # s
_BUCKETS: Final = tuple(f'le="{bound}"' for bound in (*_LATENCY_BOUNDS, "+Inf"))
_BUCKET: Final = "maskinporten_token_seconds_bucket"
_COUNT: Final = "maskinporten_token_seconds_count"
_CELL: Final = 8  # octets of a float


class Metrics:
    """Counters, gauges and one histogram, shared by the workers of a node.

    `refusals` are the names of the reasons we refuse by, `methods` the values of `client_amr`:
    the only labels there are. Gauges are per node: the row's maximum is shown.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        refusals: Sequence[str],
        methods: Sequence[str],
        authorities: Sequence[str] = (),
    ) -> None:
        self._cells: dict[tuple[str, str], int] = {}
        for name, label, values in _catalogue(refusals, methods, authorities):
            for value in values:
                self._cells[name, f'{label}="{value}"' if label else ""] = len(self._cells)
        width = len(self._cells) * _CELL
        self._file = path.open("r+b") if path else tempfile.TemporaryFile()  # noqa: SIM115
        self._file.truncate(max(os.fstat(self._file.fileno()).st_size, width * MAX_WORKERS))
        self._map = mmap.mmap(self._file.fileno(), width * MAX_WORKERS)
        self._width = len(self._cells)
        self._numbers = memoryview(self._map).cast("d")
        self._row = self._claim_row()

    def add(self, name: str, value: str = "", amount: float = 1.0) -> None:
        """Count up. `value` is the label, written `label="value"`."""
        self._numbers[self._row + self._cells[name, value]] += amount

    def put(self, name: str, amount: float, value: str = "") -> None:
        """Set a gauge."""
        self._numbers[self._row + self._cells[name, value]] = amount

    def token_issued(self, method: str, seconds: float) -> None:
        """A token was issued to a caller who proved itself by `method`, in `seconds`."""
        self.add("maskinporten_tokens_issued_total", f'client_amr="{method}"')
        self._observe(seconds)

    def token_refused(self, reason: str, seconds: float) -> None:
        """A token request was refused."""
        self.add("maskinporten_tokens_refused_total", f'reason="{reason}"')
        self._observe(seconds)

    def _observe(self, seconds: float) -> None:
        """Into one bucket; whoever reads adds the lower ones to it."""
        self.add(_BUCKET, _BUCKETS[bisect_left(_LATENCY_BOUNDS, seconds)])
        self.add("maskinporten_token_seconds_sum", amount=seconds)

    def value(self, name: str, value: str = "") -> float:
        """The node's figure: rows added up, or their maximum where it is a gauge."""
        if name == _COUNT:
            name, value = _BUCKET, _BUCKETS[-1]
        if name == _BUCKET:
            lower = _BUCKETS[: _BUCKETS.index(value) + 1]
            return sum(self._over_rows(_BUCKET, bucket) for bucket in lower)
        return self._over_rows(name, value)

    def _over_rows(self, name: str, value: str) -> float:
        rows = self._numbers[self._cells[name, value] :: self._width].tolist()
        return float(max(rows) if name in GAUGES else sum(rows))

    def exposition(self) -> str:
        """The text format that Prometheus and OpenMetrics collectors read."""
        lines: list[str] = []
        described: set[str] = set()
        for name, label in self._cells:
            family = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
            if family not in described:
                described.add(family)
                lines += [f"# HELP {family} {HELP[family]}", f"# TYPE {family} {_type(family)}"]
            lines.append(f"{name}{{{label}}} {self.value(name, label):g}".replace("{}", ""))
        return "\n".join(lines) + "\n"

    def close(self) -> None:
        """Give the row back."""
        self._numbers.release()
        self._map.close()
        self._file.close()

    def _claim_row(self) -> int:
        for row in range(MAX_WORKERS):
            width = self._width * _CELL
            try:
                fcntl.lockf(
                    self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, width, row * width, os.SEEK_SET
                )
            except OSError:
                continue
            return row * self._width
        raise RuntimeError(f"more than {MAX_WORKERS} workers share one metrics file")


_REVOCATION: Final = "maskinporten_revocation_list_until_seconds"
_ALTINN: Final = "maskinporten_altinn_calls_total"
_ALTINN_OUTCOMES: Final = (
    "yes", "no", "mismatch", "remembered", "held", "full", "timeout", "unreachable",
    "unauthorized", "busy", "error", "unusable", "unknown_source",
)  # fmt: skip
GAUGES: Final = frozenset(
    {
        _REVOCATION,
        "maskinporten_altinn_away",
        "maskinporten_registry_revision",
        "maskinporten_registry_age_seconds",
        "maskinporten_database_away",
        "maskinporten_audit_lines_lost",
    }
)
HELP: Final = {
    "maskinporten_tokens_issued_total": "Access tokens issued, by how the client proved itself.",
    "maskinporten_tokens_refused_total": "Token requests refused, by reason.",
    "maskinporten_token_seconds": "Time from a whole request to its answer at the token endpoint.",
    "maskinporten_registry_revision": "The newest registry revision a worker of this node holds.",
    "maskinporten_registry_age_seconds": "Time since a worker last heard from the database.",
    "maskinporten_database_away": "1 while spent grants cannot be written to the database.",
    "maskinporten_grants_spent_locally_total": "Grants spent on this node's word alone.",
    _REVOCATION: "Until when (epoch) an authority's list of revoked certificates is promised.",
    _ALTINN: "Questions for Altinn, by what became of them.",
    "maskinporten_altinn_grace_total": "Tokens that lean on a delegation from before Altinn left.",
    "maskinporten_altinn_away": "1 while Altinn is not asked because it does not answer.",
    "maskinporten_audit_lines_lost": "Audit lines that could not be written.",
}


def _type(family: str) -> str:
    if family in GAUGES:
        return "gauge"
    return "counter" if family.endswith("_total") else "histogram"


def _catalogue(
    refusals: Sequence[str], methods: Sequence[str], authorities: Sequence[str]
) -> Iterator[tuple[str, str, Sequence[str]]]:
    yield "maskinporten_tokens_issued_total", "client_amr", methods
    yield "maskinporten_tokens_refused_total", "reason", refusals
    yield _BUCKET, "le", [*map(str, _LATENCY_BOUNDS), "+Inf"]
    yield _COUNT, "", [""]
    yield "maskinporten_token_seconds_sum", "", [""]
    yield "maskinporten_grants_spent_locally_total", "", [""]
    yield _ALTINN, "outcome", _ALTINN_OUTCOMES
    yield "maskinporten_altinn_grace_total", "", [""]
    for gauge in sorted(GAUGES - {_REVOCATION}):
        yield gauge, "", [""]
    yield _REVOCATION, "authority", authorities
