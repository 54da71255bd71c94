"""Calls and programs in trees: a real virtual environment with numpy, on workers that see nothing else of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow import Executor, LocalGrid, find_hedge
from hedgerow._trees import Mount, check_interpreter, read_mounts

numpy = pytest.importorskip("numpy")

#: Multiplies with numpy, and says whose numpy and whose interpreter it is.
SCRIPT = """
import sys, numpy
print((numpy.arange(4) @ numpy.arange(4)).item(), numpy.__file__, sys.base_prefix)
"""


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    """A grid whose calls see system folders and their trees alone."""
    with LocalGrid(sandbox=True) as grid:
        yield grid


def add_numpy(environment: Path) -> None:
    """Installs the numpy of the tests there, as pip would."""
    site = Path(numpy.__file__).parents[1]
    packages = next(environment.glob("lib/python3*/site-packages"))
    for name in ("numpy", "numpy.libs"):
        if (site / name).exists():
            shutil.copytree(site / name, packages / name, ignore=shutil.ignore_patterns("tests"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of the interpreter that runs the tests."""
    folder = tmp_path_factory.mktemp("project") / ".venv"
    base = Path(sys.base_prefix, "bin", f"python3.{sys.version_info[1]}")
    subprocess.run([base, "-m", "venv", "--without-pip", folder], check=True)
    add_numpy(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of its own outside the system folders, as pyenv makes it."""
    folder = tmp_path_factory.mktemp("versions")
    name = f"python3.{sys.version_info[1]}"
    (folder / "bin").mkdir()
    shutil.copy2(Path(sys.base_prefix, "bin", name), folder / "bin" / name)
    skipped = shutil.ignore_patterns("site-packages", "dist-packages", "test", "config-*", "idlelib")
    shutil.copytree(Path(sys.base_prefix, "lib", name), folder / "lib" / name, ignore=skipped)
    asked = [folder / "bin" / name, "-c", "import sys; print(sys.prefix)"]
    told = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    if told != str(folder):
        pytest.skip(f"this interpreter cannot be moved: its prefix stays {told}")
    return folder


def multiply() -> tuple[int, str, str]:
    import sys

    import numpy

    return (numpy.arange(4) @ numpy.arange(4)).item(), numpy.__file__, sys.prefix


def test_calls_run_in_a_virtual_environment_that_is_sent_along(grid: LocalGrid, environment: Path) -> None:
    hidden = environment.with_name("hidden")
    python = f"{environment}/bin/python"
    with Executor(grid=grid, mounts=[environment], python=python, preload=["numpy"]) as executor:
        product, file, prefix = executor.submit(multiply).result()
        assert (product, prefix) == (14, str(environment))
        assert file.startswith(str(environment))
        # Worker and gateway have it now.
        environment.rename(hidden)
        try:
            assert [one[0] for one in executor.map(lambda _: multiply(), range(20))] == [14] * 20
        finally:
            hidden.rename(environment)


def test_an_environment_needs_its_interpreter(grid: LocalGrid, home: Path, tmp_path: Path) -> None:
    environment = tmp_path / ".venv"
    subprocess.run([next((home / "bin").iterdir()), "-m", "venv", "--without-pip", environment], check=True)
    add_numpy(environment)
    python = f"{environment}/bin/python"
    with pytest.raises(ValueError, match="add it: mounts="):
        Executor(grid=grid, mounts=[environment], python=python)
    with Executor(grid=grid, mounts=[environment, home], python=python) as executor:
        product, file, prefix = executor.submit(multiply).result()
    assert (product, prefix) == (14, str(environment))
    assert file.startswith(str(environment))


def test_a_program_runs_in_an_environment_with_its_interpreter(grid: LocalGrid, home: Path, tmp_path: Path) -> None:
    environment = tmp_path / ".venv"
    subprocess.run([next((home / "bin").iterdir()), "-m", "venv", "--without-pip", environment], check=True)
    add_numpy(environment)

    def run(*mounts: Path) -> subprocess.CompletedProcess[str]:
        options = [part for mount in mounts for part in ("--mount", str(mount))]
        program = ["--", f"{environment}/bin/python", "-c", SCRIPT]
        state = ["--dir", str(tmp_path / "state"), "--join", grid.ticket]
        command = [os.fspath(find_hedge()), "submit", "--wait", *state, *options, *program]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    lacks = run(environment)
    assert lacks.returncode == 1
    assert f"`--mount {home}` sends it" in lacks.stderr, lacks.stderr
    whole = run(environment, home)
    assert whole.returncode == 0, whole.stderr
    product, file, base = whole.stdout.split()
    assert (product, base) == ("14", str(home))
    assert file.startswith(str(environment))


def test_a_folder_is_seen_at_another_path_and_cannot_be_changed(grid: LocalGrid, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one")

    def read() -> tuple[str, bool]:
        with open("/ref/one.txt") as file:
            text = file.read()
        try:
            with open("/ref/one.txt", "w"):
                return text, True
        except OSError:
            return text, False

    with Executor(grid=grid, mounts=[(tmp_path, "/ref")]) as executor:
        assert executor.submit(read).result() == ("one", False)


def test_wrong_mounts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"mounts=\['/x'\]"):
        read_mounts("/x")
    with pytest.raises(TypeError, match="a folder and a path"):
        read_mounts([("/x", "/y", "/z")])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="is not a folder"):
        read_mounts([tmp_path / "none"])
    with pytest.raises(ValueError, match="not an absolute path"):
        read_mounts([(tmp_path, "ref")])
    with pytest.raises(ValueError, match="without a sandbox"):
        Executor(local=True, mounts=[(tmp_path, "/ref")])
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    check_interpreter(f"{tmp_path}/bin/python", (Mount(tmp_path, str(tmp_path)),))


def test_calls_without_a_sandbox_see_folders_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one")
    with Executor(local=True, mounts=[tmp_path]) as executor:
        assert executor.submit((tmp_path / "one.txt").read_text).result() == "one"
