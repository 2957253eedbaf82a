"""A server whose clock another process moves, and a process that rotates without end.

`create` is loaded by the workers of a real server in place of `maskinporten.app:create`; the only
differences are the clock, how often rotation looks, and that each worker notes what it has seen.
"""

import asyncio
import os
import sys
from pathlib import Path
from struct import Struct
from typing import Final

from maskinporten import keyring, rotation
from maskinporten.app import Application, Services, open_services
from maskinporten.commands.serve import run_server
from maskinporten.domain.registry import Registry
from maskinporten.settings import Settings

FOLDER: Final = "MOVING_FOLDER"  # the variable with the folder of clock and notes
_NUMBER: Final = Struct("=d")


def tell(folder: Path, now: float) -> None:
    """Move the clock, in one write."""
    with (folder / "clock").open("r+b" if (folder / "clock").exists() else "wb") as file:
        file.write(_NUMBER.pack(now))


def told(folder: Path) -> float:
    """What the clock shows."""
    return float(_NUMBER.unpack((folder / "clock").read_bytes())[0])


class _Application(Application):
    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, lambda: told(folder))
        self._folder = folder

    def open(self, services: Services) -> None:
        super().open(services)

        def note(registry: Registry) -> None:
            (self._folder / f"seen-{os.getpid()}").write_text(str(registry.revision))

        services.replica.on_change(note)


def create() -> Application:
    """One worker's application."""
    rotation._PAUSE = 0.05  # type: ignore[misc]
    keyring._LOWEST_PRIORITY = 0  # type: ignore[misc]  # tests share a busy machine
    return _Application(Settings.from_environ(), Path(os.environ[FOLDER]))


def serve() -> None:
    """The server itself, with as many workers as it is told."""
    run_server(Settings.from_environ(), "tests.moving:create")


async def rotate() -> None:
    """Rotate for ever, as fast as keys are made; each step is printed before the next begins."""
    settings, folder = Settings.from_environ(), Path(os.environ[FOLDER])
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    async with open_services(settings, lambda: told(folder)) as services:
        while True:
            tell(folder, told(folder) + settings.rotation_period / 4)
            for step in await services.rotation.advance():
                sys.stdout.write(f"{step.act}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        asyncio.run(rotate())
