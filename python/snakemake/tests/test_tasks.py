"""What becomes of a job's resources and arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_hedgerow._files import archive, check_relative, depth, read_made
from snakemake_executor_plugin_hedgerow._tasks import limits, without_directory


def test_resources_become_keys_of_a_task() -> None:
    resources = {"mem_mb": 500, "mem_mib": 477, "disk_mb": 2000, "runtime": 90, "gpu": 2, "critical": 1, "tmpdir": "<TBD>"}
    assert limits(resources, 4) == {
        "resources": {"cpus": 4, "memory": "756 MB", "disk": "2064 MB", "gpus": 2},
        "time_limit": "90min",
        "critical": True,
    }


def test_what_only_the_worker_knows_is_no_limit() -> None:
    assert limits({"mem_mb": "<TBD>", "runtime": 0}, 1) == {"resources": {"cpus": 1}}


def test_the_working_directory_of_this_machine_is_left_out() -> None:
    arguments = ["--snakefile", "Snakefile", "--directory", "/srv/work", "--cores", "1"]
    assert without_directory(arguments) == ["--snakefile", "Snakefile", "--cores", "1", "--directory", "."]


def test_folders_above_the_working_directory_are_counted() -> None:
    assert [depth(path) for path in ("a/b", "../a", "a/../../../b", "a/../b")] == [0, 1, 2, 0]


def test_an_absolute_path_is_refused_with_what_to_do() -> None:
    with pytest.raises(WorkflowError, match="--hedgerow-on-workers"):
        check_relative("/data/reads.fq")


@pytest.mark.parametrize("path", ["../../.profile", "/etc/passwd"])
def test_a_worker_cannot_have_files_written_elsewhere(tmp_path: Path, path: str) -> None:
    listed = tmp_path / "made.json"
    listed.write_text(json.dumps([{"path": "a", "name": "0-a", "folders": ["."], "files": [{"path": path}]}]))
    with pytest.raises(WorkflowError, match="lies elsewhere"):
        read_made(listed)


def test_the_same_sources_are_the_same_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Snakefile").write_text("rule all:\n")
    first = archive(["Snakefile"], ["work"])
    Path("Snakefile").unlink()
    Path("Snakefile").write_text("rule all:\n")
    assert archive(["Snakefile"], ["work"]) == first
