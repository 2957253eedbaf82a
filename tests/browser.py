"""A real headless Chromium, driven by its own driver over HTTP (W3C WebDriver)."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from tests.test_cli import DEADLINE, free_port

_FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1100,1400",
)  # fmt: skip


@dataclass(frozen=True)
class Browser:
    """One session. `ask` is a command of WebDriver."""

    http: httpx.Client
    session: str

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The command's value."""
        answer = self.http.request(method, f"/session/{self.session}/{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()["value"]

    def open(self, url: str) -> None:
        """Load the page."""
        self.ask("POST", "url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns."""
        return self.ask("POST", "execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str) -> Any:
        """What the script returns, once it returns something."""
        deadline = time.monotonic() + DEADLINE
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, script
            time.sleep(0.05)
        return found

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What was logged since the last look: `browser` is the console, `performance` the net."""
        found: list[dict[str, Any]] = self.ask("POST", "se/log", {"type": kind})
        return found


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser with a new profile in `folder`."""
    port = free_port()
    driver = shutil.which("chromedriver")
    assert driver, "apt-get install chromium-driver (tests/system.txt)"
    options = {
        "binary": shutil.which("chromium"),
        "args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}"],
    }
    wanted = {
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }
    with subprocess.Popen(
        [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as http:
                _await_driver(http)
                capabilities = {"capabilities": {"alwaysMatch": wanted}}
                made = http.post("/session", json=capabilities)
                assert made.is_success, made.text
                session = made.json()["value"]["sessionId"]
                try:
                    yield Browser(http, session)
                finally:
                    http.delete(f"/session/{session}")
        finally:
            process.terminate()


def _await_driver(http: httpx.Client) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            if http.get("/status").json()["value"]["ready"]:
                return
        except httpx.TransportError:
            assert time.monotonic() < deadline
        time.sleep(0.05)
