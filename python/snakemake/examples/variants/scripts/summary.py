"""Counts variants by sample."""

from pathlib import Path

counts: dict[str, int] = {}
samples: list[str] = []
for line in Path(snakemake.input[0]).read_text().splitlines():  # noqa: F821 - Snakemake defines it
    if line.startswith("#CHROM"):
        samples = line.split("\t")[9:]
        counts = dict.fromkeys(samples, 0)
    elif not line.startswith("#"):
        for sample, genotype in zip(samples, line.split("\t")[9:]):
            counts[sample] += not genotype.startswith(("0", "."))
Path(snakemake.output[0]).write_text("".join(f"{sample}\t{count}\n" for sample, count in counts.items()))  # noqa: F821
