"""Parsl on a grid: a few apps, and Parsl's own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

parsl = pytest.importorskip("parsl")

from hedgerow import LocalGrid  # noqa: E402
from hedgerow.parsl import HedgerowExecutor, options_of  # noqa: E402

HERE = Path(__file__).resolve().parent
SUITE = Path(parsl.__file__).parent / "tests"
#: What Parsl's Makefile runs for an executor that shares no file system with its workers.
CHOICE = "not shared_fs and not issue_3620 and not staging_required"
#: Tests that are left out, with the reason. There are no others.
LEFT_OUT = {
    "test_regression/test_226.py": "needs pandas",
    # Whether these pass depends on how busy the machine is.
    "test_python_apps/test_timeout.py": "uses no executor, and has 5 ms for the start of a thread",
    "test_bash_apps/test_apptimeout.py::test_walltime_longer": "a shell has to start, sleep 50 ms and end within 200 ms",
}
if os.geteuid() == 0:
    # They fail with Parsl's own thread executor too.
    _ROOT = "expects that the folder /bad cannot be made, which root can"
    LEFT_OUT |= {f"test_bash_apps/test_stdout.py::test_bad_{stream}_file": _ROOT for stream in ("stdout", "stderr")}


@parsl.python_app
def where(parsl_resource_specification: Any = None) -> str:
    import os

    return os.environ["HEDGE_JOB_ID"]


def test_apps_are_calls_of_one_job(grid: LocalGrid, tmp_path: Path) -> None:
    with parsl.load(parsl.Config(executors=[HedgerowExecutor(grid=grid)], run_dir=os.fspath(tmp_path))):
        jobs = {app.result() for app in (where(), where(), where(parsl_resource_specification={"cores": 2}))}
    assert len(jobs) == 1


def test_resources_of_parsl_are_options_of_a_call() -> None:
    assert options_of({}) is None
    wanted = {"cores": 2, "memory": 500, "gpus": 1, "critical": True}
    assert options_of(wanted) == {"cpus": 2, "memory": "500 MB", "gpus": 1, "critical": True}


@pytest.mark.parametrize("wanted", [{"nodes": 2}, {"cores": -1}])
def test_resources_that_no_call_has_are_refused(wanted: dict[str, int]) -> None:
    with pytest.raises(parsl.executors.errors.InvalidResourceSpecification, match="was not submitted"):
        options_of(wanted)


def test_parsls_own_tests_pass(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOICE]
    # As one argument: pytest takes the file for a folder of tests otherwise.
    command += [f"--config={HERE / 'parsl_suite/grid_config.py'}", f"--rootdir={SUITE}", os.fspath(SUITE)]
    command += [f"--deselect={name}" for name in LEFT_OUT if "::" in name]
    command += ["-p", "left_out"]
    files = [os.fspath(SUITE / name) for name in LEFT_OUT if "::" not in name]
    path = os.pathsep.join([os.fspath(HERE / "parsl_suite"), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "LEFT_OUT": os.pathsep.join(files)}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path, env=env)
    assert ended.returncode == 0, ended.stdout
