"""The image, as far as it can be shown without an engine: its steps are carried out, and it runs.

The steps of the Containerfile itself are executed in empty folders, and the outcome serves a
token, as a user that owns nothing, from a tree that nobody may write.
"""

import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from tests.containerfile import Stage, build, moved, read, settings
from tests.test_cli import DEADLINE, free_port
from tests.world import assertion, document, form

ROOT = Path(__file__).parent.parent
STEPS = read((ROOT / "Containerfile").read_text())
ANY_UID = 1_000_650_000  # such as OpenShift gives out


def words_of(instruction: str) -> list[list[str]]:
    """The arguments of every such step."""
    return [step.words() for step in STEPS if step.instruction == instruction]


def test_two_stages_of_one_pinned_base() -> None:
    """What builds is not what runs; both name their version."""
    stages = words_of("FROM")

    assert len(stages) == 2
    assert len({stage[0] for stage in stages}) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+-slim-\w+", stages[0][0])


def test_everything_installed_is_pinned_by_hash() -> None:
    """No step fetches what the lock does not name."""
    for step in STEPS:
        if step.instruction == "RUN" and "pip install" in step.rest:
            assert "--require-hashes" in step.rest or "--no-deps --no-build-isolation" in step.rest


def test_nothing_is_run_by_a_shell_or_by_root() -> None:
    """The image may lose its shell; any uid will do, in group 0."""
    (user,) = words_of("USER")
    assert re.fullmatch(r"[1-9]\d*:0", user[0])
    last = max(i for i, step in enumerate(STEPS) if step.instruction == "FROM")
    for step in STEPS[last:]:
        assert step.instruction != "RUN"
        if step.instruction in {"ENTRYPOINT", "CMD"}:
            assert step.rest.startswith("[")
    health = next(step for step in STEPS if step.instruction == "HEALTHCHECK")
    assert "CMD [" in health.rest


@pytest.mark.parametrize(
    "text", ["", "RUN true", "FROM x\nINSTALL y", "FROM x\nRUN", "FROM x\nENTRYPOINT"]
)
def test_what_is_no_containerfile_is_seen(text: str) -> None:
    """The reader can fail."""
    with pytest.raises(ValueError, match="instruction"):
        read(text)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where a stranger may enter: each pytest that starts closes pytest's own folders."""
    with TemporaryDirectory(prefix="maskinporten-image-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def image(folder: Path) -> Stage:
    """The last stage, built from what a checkout holds, and closed for writing."""
    stage = build(STEPS, ROOT, folder)
    assert list(moved(stage, folder / "0"))
    subprocess.run(["chmod", "-R", "a+rX,a-w", stage.root], check=True)
    return stage


def test_the_image_holds_what_runs_and_nothing_that_builds(image: Stage) -> None:
    """No pip, no tests, no key, no shell of ours."""
    installed = image.root / "opt/maskinporten"
    places = (*installed.glob("lib/python*/site-packages/*"), *installed.glob("bin/*"))
    names = {path.name for path in places}

    assert {"maskinporten", "cryptography", "granian"} <= names
    assert not names & {"pip", "flit_core", "setuptools", "pytest", "tests", "runbooks"}


def outcome(image: Stage, *command: str, **values: str) -> tuple[int, str]:
    """Exit code and output of a process of the image, run to its end."""
    with run(image, *command, **values) as process:
        output, _ = process.communicate(timeout=DEADLINE)
    return process.returncode, output


def run(image: Stage, *command: str, **values: str) -> "subprocess.Popen[str]":
    """A process of the image, as a stranger where we may become one."""
    become = (
        ["setpriv", f"--reuid={ANY_UID}", "--regid=0", "--clear-groups", "--bounding-set=-all",
         "--no-new-privs"]
        if os.getuid() == 0 else []
    )  # fmt: skip
    return subprocess.Popen(
        [*become, *command],
        env=settings(image, values),
        cwd=image.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_it_serves_a_token_as_any_user_from_a_tree_it_cannot_write(
    image: Stage, folder: Path
) -> None:
    """Written is /data (here a folder of that user's) and /tmp; stopped by SIGTERM it ends well."""
    data = folder / "data"
    data.mkdir()
    (data / "registry.json").write_text(json.dumps(document()))
    data.chmod(0o777)
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/"
    values = {
        "MASKINPORTEN_ISSUER": issuer,
        "MASKINPORTEN_ENVIRONMENT": "test",
        "MASKINPORTEN_PORT": str(port),
        "MASKINPORTEN_HOST": "127.0.0.1",
        "MASKINPORTEN_WORKERS": "1",
        "MASKINPORTEN_DRAIN": "0",
        "MASKINPORTEN_SIGNING_KEY_BITS": "2048",
        "MASKINPORTEN_DATABASE_URL": f"sqlite:///{data / 'registry.db'}",
        "MASKINPORTEN_KEY_ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode(),
    }
    applied = outcome(image, *image.entrypoint, "apply", str(data / "registry.json"), **values)
    assert applied[0] == 0, applied[1]
    with run(image, *image.entrypoint, *image.command, **values) as server:
        try:
            wait_until_answered(f"{issuer}readyz", server)
            now = int(time.time())
            grant = assertion(aud=issuer, iat=now, exp=now + 60)
            answer = httpx.post(f"{issuer}token", data=form(grant))
            healthy = outcome(image, *image.health, **values)
            owner = Path(f"/proc/{server.pid}").stat().st_uid
        finally:
            server.terminate()
        server.wait(DEADLINE)
    assert answer.status_code == 200, answer.text
    assert owner == (ANY_UID if os.getuid() == 0 else os.getuid())
    assert server.returncode == 0
    assert healthy[0] == 0, healthy[1]
    assert outcome(image, *image.health, **values)[0] != 0


def wait_until_answered(url: str, server: "subprocess.Popen[str]") -> None:
    """Until it is ready; a server that ended says why."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise AssertionError(server.communicate()[0])
        try:
            if httpx.get(url, timeout=2).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("not ready in time")
