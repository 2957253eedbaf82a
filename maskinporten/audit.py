"""What an audit entry is, and how token entries are written: one JSON object a line.

Assertions, tokens and keys never stand here; the JSON encoder keeps a caller's newlines from
becoming lines of ours.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

_ENCODER: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who changed the registry, when and how. Written with the change, in one commit.

    `subjects` are the organisation numbers that may read the entry; `before` and `after` hold
    the entities as JSON, by `kind/id`.
    """

    at: int  # epoch seconds
    caller: Mapping[str, str]  # {"kind": "operator"} or the client, organisation and key
    command: str
    subjects: frozenset[str] = frozenset()
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)


class AuditLog:
    """Appends token entries to a file, or to standard output.

    A line is written with one system call, so that workers can share the file. What the
    operating system refuses to take (a full disk) is counted in `lost`; it does not stop tokens.
    """

    def __init__(self, path: Path | None) -> None:
        self.lost = 0
        if path is None:
            self._descriptor = os.dup(sys.stdout.fileno())
        else:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

    def write(self, entry: Mapping[str, Any]) -> None:
        """One line."""
        try:
            os.write(self._descriptor, _ENCODER.encode(entry) + b"\n")
        except OSError:
            self.lost += 1

    def close(self) -> None:
        """No lines can be written after this."""
        os.close(self._descriptor)
