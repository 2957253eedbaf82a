"""Reads a Containerfile and carries out its steps in empty folders, where no engine is at hand.

A stage's root is a folder; `FROM python:…` puts this machine's Python into its usr/local, as the
image has it. Absolute paths of the stage are rewritten to lie below its folder. What this cannot
show: the base image's own content, and the layers as an engine would make them.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

KNOWN: Final = frozenset(
    {
        "FROM", "WORKDIR", "COPY", "RUN", "LABEL", "ENV", "USER", "VOLUME", "EXPOSE",
        "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD",
    }
)  # fmt: skip
_OURS: Final = re.compile(r"(?<![\w.])/(opt|src|usr/local|data)\b")


class Step(NamedTuple):
    """One instruction and all that stands behind it."""

    instruction: str
    rest: str

    def words(self) -> list[str]:
        """The arguments, from either form."""
        if self.rest.startswith("["):
            found: list[str] = json.loads(self.rest)
            return found
        return shlex.split(self.rest)


def read(text: str) -> list[Step]:
    """The steps of a Containerfile. Raises ValueError for what no engine would take."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    steps = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction not in KNOWN or not rest.strip():
            raise ValueError(f"not an instruction: {line}")
        steps.append(Step(instruction, rest.strip()))
    if not steps or steps[0].instruction != "FROM":
        raise ValueError("the first instruction must be FROM")
    return steps


@dataclass
class Stage:
    """A stage: its folder, and what it has been told about running."""

    root: Path
    name: str = ""
    base: str = ""
    folder: str = "/"
    user: str = "0"
    environ: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def place(self, path: str) -> Path:
        """Where a path of the stage lies here."""
        return self.root / path.lstrip("/") if path.startswith("/") else self.at / path

    @property
    def at(self) -> Path:
        """The working directory."""
        return self.root / self.folder.lstrip("/")

    def rewritten(self, text: str) -> str:
        """A command or variable, with the stage's paths below its folder."""
        return _OURS.sub(lambda found: f"{self.root}/{found[1]}", text)

    def variables(self) -> dict[str, str]:
        """The environment of a process in the stage, and nothing of ours."""
        passed = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("PIP_", "SSL_", "REQUESTS_")) or name.lower().endswith("_proxy")
        }
        own = {name: self.rewritten(value) for name, value in self.environ.items()}
        path = own.pop("PATH", f"{self.root}/usr/local/bin:/usr/bin:/bin")
        library = str(self.root / "usr/local/lib")
        return {**passed, **own, "PATH": path, "LD_LIBRARY_PATH": library, "HOME": "/nowhere"}


def build(steps: list[Step], context: Path, folder: Path) -> Stage:
    """Carry out every step; the last stage."""
    stages: list[Stage] = []
    for step in steps:
        if step.instruction == "FROM":
            base, *named = step.words()
            stage = Stage(folder / str(len(stages)), (named or ["", ""])[-1], base)
            stage.root.mkdir(parents=True)
            copy_python(stage.root / "usr/local")
            stages.append(stage)
        else:
            _carry_out(step, stages, context)
    return stages[-1]


def copy_python(target: Path) -> None:
    """This machine's Python as an image has it: the program, its library, pip, nothing else."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    (target / "bin").mkdir(parents=True)
    shutil.copy2(Path(sys._base_executable).resolve(), target / "bin" / version)  # type: ignore[attr-defined]
    for name in ("python", "python3"):
        (target / "bin" / name).symlink_to(version)
    skipped = shutil.ignore_patterns("site-packages", "test", "__pycache__", "idlelib", "config-*")
    shutil.copytree(base / "lib" / version, target / "lib" / version, ignore=skipped)
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy2(library, target / "lib" / library.name)


def _carry_out(  # noqa: C901 - one case for each instruction
    step: Step, stages: list[Stage], context: Path
) -> None:
    stage, words = stages[-1], step.words()
    match step.instruction:
        case "WORKDIR":
            stage.folder = words[0]
            stage.at.mkdir(parents=True, exist_ok=True)
        case "COPY":
            source = context
            if words[0].startswith("--from="):
                name = words.pop(0).removeprefix("--from=")
                source = next(s.root for s in stages if s.name == name)
            *sources, target = words
            for one in sources:
                _copy(source / one.lstrip("/"), stage.place(target), into=target.endswith("./"))
        case "RUN":
            command = stage.rewritten(step.rest)
            subprocess.run(
                ["sh", "-c", command], cwd=stage.at, env=stage.variables(), check=True, timeout=600
            )
        case "ENV":
            stage.environ |= dict(word.split("=", 1) for word in words)
        case "USER":
            stage.user = words[0]
        case "VOLUME":
            for place in words:
                stage.place(place).mkdir(parents=True, exist_ok=True)
        case "ENTRYPOINT":
            stage.entrypoint = words
        case "CMD":
            stage.command = words
        case "HEALTHCHECK":
            stage.health = json.loads(step.rest[step.rest.index("[") :])


def _copy(source: Path, target: Path, *, into: bool) -> None:
    if source.is_dir():
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=skipped)
    else:
        target.mkdir(parents=True, exist_ok=True) if into else None
        shutil.copy2(source, target)


def moved(stage: Stage, earlier: Path) -> Iterator[Path]:
    """Files that name the folder of an earlier stage get this one's: both are `/` in truth."""
    for path in stage.root.joinpath("opt").rglob("*"):
        if path.is_symlink():
            target = str(path.readlink())
            if target.startswith(str(earlier)):
                path.unlink()
                path.symlink_to(str(stage.root) + target.removeprefix(str(earlier)))
                yield path
        elif path.is_file() and path.stat().st_size < 1_000_000:
            octets = path.read_bytes()
            if str(earlier).encode() in octets and b"\0" not in octets:
                path.write_bytes(octets.replace(str(earlier).encode(), str(stage.root).encode()))
                yield path


def settings(stage: Stage, values: Mapping[str, str]) -> dict[str, str]:
    """The environment with which the container is started."""
    return {**stage.variables(), **values}
