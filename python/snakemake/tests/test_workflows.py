"""Workflows with files of every kind, with failures, and with processes that are killed."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import WORKFLOWS, Snakemake, contents, run_locally, until

from hedgerow import LocalGrid


@pytest.fixture
def snakemake(grid: LocalGrid) -> Snakemake:
    """Snakemake on the grid that the tests share."""
    return Snakemake(grid)


def prepare(name: str, target: Path) -> Path:
    """A copy of a workflow."""
    return Path(shutil.copytree(WORKFLOWS / name, target))


def test_files_of_every_kind_are_those_of_a_local_run(snakemake: Snakemake, tmp_path: Path) -> None:
    for place in ("here", "there"):
        folder = prepare("files", tmp_path / place / "files") / "run"
        folder.mkdir()
        (tmp_path / place / "above").mkdir()
        (tmp_path / place / "above" / "data.txt").write_text("data\n")
    here, there = tmp_path / "here/files/run", tmp_path / "there/files/run"
    run_locally(here, "-s", "../Snakefile")
    ended = snakemake.run(there, "-s", "../Snakefile")
    assert ended.returncode == 0, ended.stdout
    assert contents(there) == contents(here)
    assert (there / "parts/empty").is_dir()
    assert (there / "above.txt").stat().st_mode & 0o222 == 0, "a protected output is read only"
    again = snakemake.run(there, "-s", "../Snakefile")
    assert "Nothing to be done" in again.stdout, again.stdout


def test_failures_are_told_with_what_was_printed(snakemake: Snakemake, tmp_path: Path) -> None:
    folder = prepare("failing", tmp_path / "failing")
    ended = snakemake.run(folder, "--keep-going")
    assert ended.returncode == 1
    assert (folder / "good.txt").read_text() == "good\n"
    assert "/etc/hostname has an absolute path" in ended.stdout
    assert "hedge explain" in ended.stdout
    logs = [path.read_text() for path in (folder / ".snakemake/hedgerow").iterdir()]
    assert len(logs) == 2, "Snakemake tried twice"
    assert all("the reason" in log for log in logs)


def test_an_interrupted_workflow_leaves_nothing_running(snakemake: Snakemake, tmp_path: Path) -> None:
    folder = prepare("waiting", tmp_path / "interrupted")
    process = snakemake.start(folder, "--config", f"go={tmp_path}/go")
    until("two running tasks", lambda: snakemake.job(folder).get("running") == 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    until("the end of the job", lambda: snakemake.job(folder)["state"] not in ("waiting", "running"))


def test_a_killed_snakemake_finds_its_tasks_again(snakemake: Snakemake, tmp_path: Path) -> None:
    folder = prepare("waiting", tmp_path / "killed")
    arguments = ("--config", f"go={tmp_path}/go")
    process = snakemake.start(folder, *arguments)
    until("two running tasks", lambda: snakemake.job(folder).get("running") == 2)
    job = snakemake.job(folder)["id"]
    process.kill()
    process.wait()
    (tmp_path / "go").touch()
    assert snakemake.run(folder, *arguments, "--unlock").returncode == 0
    ended = snakemake.run(folder, *arguments)
    assert ended.returncode == 0, ended.stdout
    assert f"of job {job} of the grid goes on" in ended.stdout
    assert [(folder / name).read_text() for name in ("0.txt", "1.txt")] == [f"{job}\n"] * 2
    assert snakemake.job(folder)["id"] == job, "there is no other job"


def test_the_leader_is_killed_and_the_workflow_ends(tmp_path: Path) -> None:
    folder = prepare("waiting", tmp_path / "leaderless")
    with LocalGrid(workers=1, cpus=2, supervisors=3) as grid:
        snakemake = Snakemake(grid)
        process = snakemake.start(folder, "--config", f"go={tmp_path}/go")
        until("two running tasks", lambda: snakemake.job(folder).get("running") == 2)
        os.killpg(grid.supervisors[0].pid, signal.SIGKILL)
        (tmp_path / "go").touch()
        assert process.wait(timeout=120) == 0, (folder / "snakemake.log").read_text()
    assert (folder / "1.txt").exists()
