"""A node whose clock is wrong: `python -m tests.shifted SECONDS` serves like `serve`."""

import logging
import os
import sys
import time

from granian import Granian
from granian.constants import Interfaces, Loops, RuntimeModes

from maskinporten.app import Application
from maskinporten.settings import Settings

SHIFT = "TEST_CLOCK_SHIFT"


def create() -> Application:
    """The application with its clock so many seconds off."""
    logging.basicConfig(level=logging.INFO)
    seconds = float(os.environ[SHIFT])
    return Application(Settings.from_environ(), lambda: time.time() + seconds)


if __name__ == "__main__":
    os.environ[SHIFT] = sys.argv[1]
    Granian(
        "tests.shifted:create",
        port=Settings.from_environ().port,
        interface=Interfaces.ASGI,
        factory=True,
        loop=Loops.uvloop,
        runtime_mode=RuntimeModes.st,
    ).serve()
