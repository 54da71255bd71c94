"""Jobs of Snakemake as tasks of the grid."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Union

from ._files import SOURCES, Needs

#: Where a task finds the program that runs it.
PROGRAM = "run.py"
#: Modules that the interpreter of a worker imports once for all jobs of a workflow.
PRELOADED = [
    "snakemake.api",
    "snakemake.cli",
    "snakemake.executors.local",
    "snakemake.profiles",
    "snakemake.report.html_reporter",
    "snakemake.storage",
]
#: What Snakemake itself needs beside the job, for which a rule does not ask: memory and disk, in MB.
_OWN_MEMORY_MB = 256
_OWN_DISK_MB = 64
#: Resources that count GPUs.
_GPUS = ("gpus", "gpu", "nvidia_gpu")
_PRIORITY_MAX = 2**31 - 1
#: Longest part of a task's name that the rule's name gives.
_NAME_LENGTH = 80

Resources = Mapping[str, Union[int, str]]


def members(job: Any) -> list[Any]:
    """The jobs of a group, or the job itself."""
    return list(job.jobs) if job.is_group() else [job]


def inputs(job: Any) -> list[str]:
    """What a job or group reads and does not make itself."""
    made = {str(path) for member in members(job) for path in member.output}
    paths = [path for member in members(job) for path in member.input if travels(path)]
    return [str(path) for path in dict.fromkeys(paths) if str(path) not in made]


def products(job: Any) -> list[str]:
    """What a job or group makes: outputs, logs and benchmarks."""
    paths = []
    for member in members(job):
        paths += [path for path in (*member.output, *member.log, member.benchmark) if path is not None and travels(path)]
    return [str(path) for path in dict.fromkeys(paths)]


def logs(job: Any) -> list[str]:
    """The logs of a job or group."""
    return [str(path) for member in members(job) for path in member.log]


def travels(path: Any) -> bool:
    """Whether a file is one between this machine and a worker: no pipe, and nothing that a storage plugin holds."""
    flags = getattr(path, "flags", {})
    return not any(flags.get(name) for name in ("pipe", "service")) and not getattr(path, "is_storage", False)


def name_of(job: Any) -> str:
    """The rule's name, or that of the group, as a part of a task's name."""
    return re.sub("[^A-Za-z0-9_-]", "_", str(job.groupid if job.is_group() else job.name))[:_NAME_LENGTH] or "job"


def cpus(job: Any) -> int:
    """The processors of a job: its threads, or what Snakemake found for a group."""
    return int(job.resources.get("_cores", job.threads))


def write_task(task: str, job: Any, python: str, env: Mapping[str, str], needs: Needs) -> dict[str, Any]:
    """A job as a table of a job file."""
    written: dict[str, Any] = {
        "id": task,
        "kind": name_of(job),
        "command": [python, PROGRAM, f"{task}.json"],
        "runtime": "python",
        "preload": PRELOADED,
        "inputs": [PROGRAM, SOURCES, f"{task}.json", *needs.brought, *({"task": other} for other in needs.tasks)],
        "outputs": [f"out/{task}/"],
        # Snakemake tries again itself, with the resources of the next attempt.
        "retries": 0,
        "env": {"PYTHONUNBUFFERED": "1", **env},
    }
    written.update(limits(job.resources, cpus(job)))
    priority = getattr(job, "priority", 0)
    if isinstance(priority, (int, float)) and priority:
        written["priority"] = max(-_PRIORITY_MAX, min(int(priority), _PRIORITY_MAX))
    return written


def limits(resources: Resources, cpus: int) -> dict[str, Any]:
    """Resources of Snakemake as keys of a task."""
    wanted: dict[str, Any] = {"cpus": cpus}
    memory, disk = amount(resources, "mem_mb"), amount(resources, "disk_mb")
    if memory:
        wanted["memory"] = f"{memory + _OWN_MEMORY_MB} MB"
    if disk:
        wanted["disk"] = f"{disk + _OWN_DISK_MB} MB"
    gpus = max(amount(resources, name) for name in _GPUS)
    if gpus:
        wanted["gpus"] = gpus
    keys: dict[str, Any] = {"resources": wanted}
    minutes = amount(resources, "runtime")
    if minutes:
        keys["time_limit"] = f"{minutes}min"
    if amount(resources, "critical"):
        keys["critical"] = True
    return keys


def amount(resources: Resources, name: str) -> int:
    """The number that a resource has; 0 for none, and for one that is only known on the worker."""
    value = resources.get(name, 0)
    return value if isinstance(value, int) and value > 0 else 0


def without_directory(arguments: list[str]) -> list[str]:
    """Arguments of Snakemake without the working directory of this machine; the one of the task is the current one."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("--directory", "-d"):
            skip = True
        elif not argument.startswith("--directory="):
            kept.append(argument)
    return [*kept, "--directory", "."]


def default_python(local: bool) -> str:
    """The interpreter of a local grid is this one."""
    return sys.executable if local else "python3"


def describe(
    task: str, job: Any, arguments: Iterable[str], precommand: str, workdir: list[str], needs: Needs
) -> dict[str, Any]:
    """What ``_worker.py`` reads."""
    return {
        "task": task,
        "arguments": list(arguments),
        "precommand": precommand,
        "workdir": workdir,
        "sources": SOURCES,
        "files": needs.files,
        "folders": needs.folders,
        "products": products(job),
        "logs": logs(job),
    }
