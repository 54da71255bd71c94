"""An installed package finds its own program, wherever an installer puts it.

The wheel here is put together from the sources and the program that the tests use, as maturin does it with one that it
builds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cloudpickle
import pytest

from hedgerow import __version__, find_hedge

SOURCE = Path(__file__).resolve().parents[1] / "src"
METADATA = f"Metadata-Version: 2.1\nName: hedgerow\nVersion: {__version__}\n"
TAG = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with the program among its scripts."""
    path = tmp_path_factory.mktemp("wheel") / f"hedgerow-{__version__}-py3-none-any.whl"
    about = f"hedgerow-{__version__}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as made:
        for file in sorted((SOURCE / "hedgerow").glob("*")):
            if file.suffix in (".py", ".typed"):
                made.write(file, f"hedgerow/{file.name}")
        # A stand-in of a few bytes, which is the program: an installer copies it like any script.
        script = f'#!/bin/sh\nexec "{find_hedge()}" "$@"\n'
        entry = zipfile.ZipInfo(f"hedgerow-{__version__}.data/scripts/hedge")
        entry.external_attr = 0o100755 << 16
        made.writestr(entry, script)
        made.writestr(f"{about}/METADATA", METADATA)
        made.writestr(f"{about}/WHEEL", TAG)
        made.writestr(f"{about}/RECORD", "")
    return path


def run(command: list[str], **env: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HEDGEROW_BINARY")}
    ended = subprocess.run(command, env={**kept, **env}, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def install(python: Path, wheel: Path, *options: str, **env: str) -> None:
    run([os.fspath(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *options, str(wheel)], **env)


def found_by(python: Path, *folders: Path, **env: str) -> str:
    """What `python -m hedgerow` is, and where the package found it."""
    paths = [*map(str, folders), os.fspath(Path(cloudpickle.__file__).parents[1])]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    env.setdefault("PATH", "/usr/bin:/bin")
    assert run([os.fspath(python), "-m", "hedgerow", "--version"], **env).strip() == f"hedge {__version__}"
    return run([os.fspath(python), "-c", "import hedgerow; print(hedgerow.find_hedge())"], **env).strip()


def test_a_virtual_environment_has_it_among_its_scripts(wheel: Path, tmp_path: Path) -> None:
    run([sys.executable, "-m", "venv", str(tmp_path / "env")])
    python = tmp_path / "env" / "bin" / "python"
    install(python, wheel)
    assert found_by(python) == str(tmp_path / "env" / "bin" / "hedge")


def test_a_target_folder_has_it_beside_the_package(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    install(Path(sys.executable), wheel, "--target", str(target))
    assert found_by(Path(sys.executable), target) == str(target / "bin" / "hedge")


def test_another_version_is_refused_with_what_to_do(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    install(Path(sys.executable), wheel, "--target", str(target))
    hedge = target / "bin" / "hedge"
    hedge.write_text("#!/bin/sh\necho hedge 9.9.9\n")
    env = {"PYTHONPATH": os.pathsep.join([str(target), os.fspath(Path(cloudpickle.__file__).parents[1])])}
    env["PATH"] = "/usr/bin:/bin"
    ended = subprocess.run(
        [sys.executable, "-m", "hedgerow", "--version"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "9.9.9" in ended.stderr and "pip install --force-reinstall" in ended.stderr
