"""What this node has spent lately, in a folder that its workers share.

While the database answers, workers only append what it let them spend. While it is away, a worker
claims a grant here instead: under a lock that all workers of the node take by turns, so that one
of them gets it. A claim is owed to the database; whichever worker hears of it first pays, also
one that was started after the claimer died.

    spent-5999999   what the database has taken        records of 40 octets: the grant's name and
    owed-5999999    what was claimed without it        until when (epoch seconds) it matters

The number is the time slice in which it was written; nothing outlives the slice after its own.
Who looked at the clock just before a slice began reads that slice too: another may be in it.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import Final

from maskinporten.store import Spending

SLICE: Final = 300  # seconds; longer than a grant is remembered
_RECORD: Final = Struct("<32sq")


class _Log:
    """One kind of record over three slices, and what this worker has read of it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.known: dict[bytes, int] = {}
        self._folder = folder
        self._kind = kind
        self._slice = -1
        self._files: dict[int, tuple[int, int]] = {}  # slice -> descriptor, octets read

    def turn(self, now: int) -> None:
        """Open the slice of `now` and those beside it, and let go of what is older.

        Another worker may already be in the next one, and what is newer stays: its clock may be
        ahead, or ours was set back.
        """
        current = now // SLICE
        if current == self._slice:
            return
        self._slice = current
        wanted = {current - 1, current, current + 1}
        for path in self._folder.glob(f"{self._kind}-*"):
            number = path.name.rpartition("-")[2]
            if not number.isdecimal():
                continue
            if int(number) < current - 1:
                path.unlink(missing_ok=True)
            else:
                wanted.add(int(number))
        for old in self._files.keys() - wanted:
            os.close(self._files.pop(old)[0])
        for new in wanted - self._files.keys():
            path = self._folder / f"{self._kind}-{new}"
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._files[new] = (descriptor, 0)
        self.known = {key: until for key, until in self.known.items() if until >= now}

    def read(self, now: int) -> None:
        """Take up what any worker has written since."""
        for number, (descriptor, seen) in self._files.items():
            size = os.fstat(descriptor).st_size
            size -= size % _RECORD.size
            if size <= seen:
                continue
            octets = os.pread(descriptor, size - seen, seen)
            octets = octets[: len(octets) - len(octets) % _RECORD.size]
            self._files[number] = (descriptor, seen + len(octets))
            for key, until in _RECORD.iter_unpack(octets):
                if until >= now:
                    self.known[key] = until

    def append(self, grants: Sequence[Spending]) -> None:
        """All of them, or OSError and none."""
        descriptor, _ = self._files[self._slice]
        octets = b"".join(_RECORD.pack(*grant) for grant in grants)
        size = os.fstat(descriptor).st_size
        if torn := size % _RECORD.size:
            size -= torn
            os.ftruncate(descriptor, size)
        try:
            if os.write(descriptor, octets) != len(octets):
                raise OSError("the disk is full")
        except OSError:
            os.ftruncate(descriptor, size)
            raise

    def close(self) -> None:
        for descriptor, _ in self._files.values():
            os.close(descriptor)


class Spool:
    """The shared folder, as one worker uses it. Every method holds the lock for microseconds."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._spent = _Log(folder, "spent")
        self._owed = _Log(folder, "owed")

    def note(self, grants: Sequence[Spending], now: int) -> frozenset[bytes]:
        """Remember what the database let this worker spend; which of them were claimed before.

        Those are somebody else's: the database was away for that worker only. Raises OSError.
        """
        with self._locked(now):
            self._owed.read(now)
            claimed = frozenset(g.key for g in grants if g.key in self._owed.known)
            self._spent.append(grants)
        return claimed

    def claim(self, grant: Spending, now: int) -> bool:
        """Whether this worker is the node's first with this grant; then it is owed to the database.

        Raises OSError where that cannot be written down; then it is nobody's.
        """
        with self._locked(now):
            self._spent.read(now)
            self._owed.read(now)
            if grant.key in self._spent.known or grant.key in self._owed.known:
                return False
            self._owed.append([grant])
        return True

    def owed(self, now: int) -> list[Spending]:
        """What any worker of this node has claimed and could still be used again."""
        with self._locked(now):
            self._owed.read(now)
        return [Spending(*item) for item in self._owed.known.items() if item[1] >= now]

    def close(self) -> None:
        """Let go of the folder; what it holds stays."""
        self._spent.close()
        self._owed.close()
        os.close(self._lock)

    @contextmanager
    def _locked(self, now: int) -> Iterator[None]:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._spent.turn(now)
            self._owed.turn(now)
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
