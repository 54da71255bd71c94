"""A real workflow, on three workers of which one is killed."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import Snakemake, contents, run_locally, until

from hedgerow import LocalGrid

EXAMPLE = Path(__file__).parents[1] / "examples" / "variants"
#: Reads of the phage lambda and its genome, which Debian's package bowtie2-examples has.
DATA = Path("/usr/share/doc/bowtie2/examples")
LINES = 4 * 2500


def prepare(folder: Path) -> Path:
    """The example with its data: four samples, which are quarters of the reads."""
    shutil.copytree(EXAMPLE, folder)
    (folder / "data").mkdir()
    (folder / "data/reference.fa").write_bytes(gzip.decompress((DATA / "reference/lambda_virus.fa.gz").read_bytes()))
    for mate in (1, 2):
        reads = gzip.decompress((DATA / f"reads/reads_{mate}.fq.gz").read_bytes()).splitlines(keepends=True)
        for number, sample in enumerate("abcd"):
            (folder / f"data/{sample}_{mate}.fq").write_bytes(b"".join(reads[number * LINES : (number + 1) * LINES]))
    return folder


def test_variants_are_those_of_a_local_run_although_a_worker_is_killed(tmp_path: Path) -> None:
    missing = [name for name in ("bwa", "samtools", "bcftools") if shutil.which(name) is None]
    if missing or not DATA.exists():
        pytest.skip(f"not installed: {', '.join(missing) or 'bowtie2-examples'}")
    here, there = prepare(tmp_path / "here"), prepare(tmp_path / "there")
    run_locally(here)
    with LocalGrid(workers=3, cpus=2) as grid:
        snakemake = Snakemake(grid)
        process = snakemake.start(there)
        # `index` is done and left files on one worker; `map` runs on all three.
        until("three running tasks", lambda: snakemake.job(there).get("running", 0) >= 3)
        os.killpg(grid.workers[0].pid, signal.SIGKILL)
        assert process.wait(timeout=240) == 0, (there / "snakemake.log").read_text()
        attempts = snakemake.job(there)["attempts"]
    assert contents(there) == contents(here)
    assert attempts["lost"] >= 1, "the worker that was killed ran something"
    counts = [line.split("\t") for line in (there / "calls/summary.tsv").read_text().splitlines()]
    assert [sample for sample, count in counts if int(count) > 50] == ["a", "b", "c", "d"]
