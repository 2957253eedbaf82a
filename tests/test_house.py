"""The rules of the house (DESIGN.md), as tests."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "maskinporten"
MODULES = sorted(PACKAGE.rglob("*.py"))
BARRED = {"utils", "helpers", "manager", "common", "misc", "base", "service", "types", "constants"}
MAX_LINES = 400
LONGER = {"consumer", "validator"}  # each one file that can be copied out; DESIGN.md, Decisions


def tracked() -> list[Path]:
    """Every file under version control that is still there."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module(path: Path) -> None:
    """A module has a name of the field, a docstring, and one purpose that fits 400 lines."""
    tree = ast.parse(path.read_text())

    assert path.stem not in BARRED
    assert ast.get_docstring(tree)
    assert path.stem in LONGER or len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", sorted((PACKAGE / "domain").rglob("*.py")), ids=lambda p: p.name)
def test_rules_do_not_wait(path: Path) -> None:
    """Nothing in the domain is asynchronous."""
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

    assert not [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, waiting)]


@pytest.mark.parametrize("name", ["consumer", "validator"])
def test_libraries_stand_alone(name: str) -> None:
    """The two libraries can be copied out: they import nothing of ours."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    imported = {
        module
        for node in ast.walk(tree)
        for module in (
            [node.module or "." * node.level]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }

    assert not [module for module in imported if module.startswith(("maskinporten", "."))]


def test_only_settings_reads_the_environment() -> None:
    """One module knows what the environment is called."""
    readers = re.compile(r"os\.(getenv|environ(\.get|\[[^\]]+\](?! *=)))")
    found = [
        path.name
        for path in MODULES
        if path.name != "settings.py" and readers.search(path.read_text())
    ]

    assert not found


def test_lock_files_pin_hashes_and_name_no_index() -> None:
    """Every version has a hash; where it comes from is the machine's business."""
    for lock in ROOT.glob("requirements*.lock"):
        text = lock.read_text()
        assert "://" not in text
        for line in text.splitlines():
            if "==" in line:
                assert line.endswith("\\"), line


def test_no_file_names_a_place_of_its_makers() -> None:
    """No path of a machine, no TODO, stands in a tracked file."""
    place = re.compile(r"(^|[^A-Za-z0-9_.])/(work|farm)/[a-z.]|/tmp/wt")
    later = re.compile(r"\b(TO" r"DO|FIX" r"ME)\b")
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        assert path == Path(__file__) or not place.search(text), path
        assert PACKAGE not in path.parents or not later.search(text), path
