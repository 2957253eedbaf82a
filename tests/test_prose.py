"""Prose tells the truth: every setting, reason, metric and command stands in it."""

import argparse
from pathlib import Path

import pytest

from maskinporten.cli import parser
from maskinporten.errors import Reason
from maskinporten.metrics import HELP
from maskinporten.settings import SETTINGS

ROOT = Path(__file__).parent.parent
PROSE = "\n".join((ROOT / name).read_text() for name in ("README.md", "DESIGN.md", "SECURITY.md"))


def commands() -> list[str]:
    """The names of all commands."""
    found = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return sorted(found[0].choices)


@pytest.mark.parametrize("setting", SETTINGS)
def test_setting(setting: str) -> None:
    """An operator finds each setting."""
    assert setting in PROSE


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_reason(reason: Reason) -> None:
    """An operator finds the meaning of each reason in log, audit and metrics."""
    assert f"`{reason.name}`" in PROSE


@pytest.mark.parametrize("metric", HELP)
def test_metric(metric: str) -> None:
    """An operator finds each metric."""
    assert f"`{metric}`" in PROSE


@pytest.mark.parametrize("command", commands())
def test_command(command: str) -> None:
    """A newcomer finds each command."""
    assert f"`{command}`" in PROSE


def test_the_first_screen_of_the_readme() -> None:
    """The two commands that do all the set-up stand on the first screen."""
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])

    assert "make run" in first
    assert "make test" in first
