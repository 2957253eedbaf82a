"""`backup`, `restore`: the registry as a file that is written while servers run."""

import argparse
import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maskinporten.backup import FORGOTTEN, Backup, read_backup, restore, write_backup
from maskinporten.commands.registry import opened
from maskinporten.domain.registry import Registry
from maskinporten.domain.signing import Stage
from maskinporten.errors import Fault, InvalidInput
from maskinporten.settings import PREFIX


def add_parser(commands: Any) -> None:
    """Declare the two commands."""
    backup = commands.add_parser(
        "backup",
        help="write the registry, its audit trail and its sealed keys into one file",
        description="One consistent moment of a database in use, as JSON lines with a digest. "
        "It opens under the same key-encryption key only; keep the two apart.",
    )
    backup.add_argument("file", type=Path, metavar="FILE", help="is replaced when all is written")
    backup.set_defaults(run=lambda a: asyncio.run(_backup(a)))
    restoring = commands.add_parser(
        "restore",
        help="put a backup into an empty database, SQLite or PostgreSQL",
        description="Reads the whole file before anything is written. `serve` then waits until "
        "grants that were spent before are dead.",
    )
    restoring.add_argument("file", type=Path, metavar="FILE")
    restoring.add_argument("--dry-run", action="store_true", help="read the file, and stop")
    restoring.set_defaults(run=lambda a: asyncio.run(_restore(a)))
    for command in (backup, restoring):
        command.add_argument("--database", metavar="URL", help=f"instead of {PREFIX}DATABASE_URL")


async def _backup(arguments: argparse.Namespace) -> int:
    async with opened(arguments.database) as store:
        try:
            made = await write_backup(store, arguments.file, int(time.time()))
        except OSError as fault:
            sentence = f"cannot be written: {fault.strerror}"
            raise InvalidInput((Fault(str(arguments.file), sentence),)) from fault
    print(f"{made.path}: revision {made.revision}, {made.rows} rows")
    return 0


async def _restore(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        print(_whole(read_backup(arguments.file)))
        return 0
    async with opened(arguments.database) as store:
        found = await restore(store, arguments.file, int(time.time()))
        revision, entities = await store.changes_since(Registry().revision)
    registry = Registry().with_entities(revision, entities)
    print(_whole(found))
    print("What was decided after that moment is undone: look for withdrawn access, deactivated")
    print("clients, removed client keys and revoked signing keys. These signing keys came back:")
    for key in sorted(registry.signing_keys.values(), key=lambda key: (key.stage, key.kid)):
        if key.stage is not Stage.REMOVED:
            print(f"  {key.kid}  {key.stage}")
    print(f"serve waits up to {FORGOTTEN} seconds, until every grant spent before is dead")
    return 0


def _whole(backup: Backup) -> str:
    made = datetime.fromtimestamp(backup.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{backup.path}: revision {backup.revision} of {made} UTC, {backup.rows} rows, whole"
