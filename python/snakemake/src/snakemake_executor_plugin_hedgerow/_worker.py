"""Runs on a worker, with nothing but the standard library and Snakemake: puts files where the rule expects them, runs Snakemake
for one job or group, and puts what it made where the grid takes it from.

The only argument is a JSON file, which ``_tasks.py`` writes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import time
from typing import Any

#: How much of a log is printed when a job fails, bytes from its end.
_LOG_BYTES = 64 << 10


def main() -> int:
    """Runs the job and gives the exit status of the task."""
    top = os.getcwd()
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    tree = os.path.join(top, "tree")
    workdir = os.path.join(tree, *spec["workdir"])
    os.makedirs(workdir)
    with tarfile.open(os.path.join(top, spec["sources"])) as sources:
        # Python 3.11.4 has filters.
        safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        sources.extractall(tree, **safe)
    place_all(spec, top, workdir)
    # Modules beside this file are none of the workflow's.
    sys.path.pop(0)
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", os.defpath)
    os.environ["XDG_CACHE_HOME"] = os.path.join(top, "cache")
    os.chdir(workdir)
    try:
        status = run(spec)
    finally:
        os.chdir(workdir)
        for thread in threading.enumerate():
            # Snakemake would look for further jobs in a second.
            if isinstance(thread, threading.Timer):
                thread.cancel()
    if status == 0:
        collect(spec, os.path.join(top, "out", spec["task"]))
    else:
        show_logs(spec["logs"])
    return status


def run(spec: dict[str, Any]) -> int:
    """Runs Snakemake in this process, or behind a command that prepares the environment."""
    arguments: list[str] = spec["arguments"]
    if spec["precommand"]:
        script = f'{spec["precommand"]} && exec "$0" -m snakemake "$@"'
        return subprocess.run(["bash", "-c", script, sys.executable, *arguments], check=False).returncode
    from snakemake.cli import main as snakemake

    sys.argv = ["snakemake", *arguments]
    try:
        snakemake()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def place_all(spec: dict[str, Any], top: str, workdir: str) -> None:
    """Puts each input where the rule expects it."""
    for folder in spec["folders"]:
        os.makedirs(os.path.join(workdir, folder), exist_ok=True)
    uses: dict[str, int] = {}
    for source in spec["files"].values():
        uses[source] = uses.get(source, 0) + 1
    products = set(spec["products"])
    # Folders come before files that lie in them.
    for path, source in sorted(spec["files"].items()):
        uses[source] -= 1
        place(os.path.join(top, source), os.path.join(workdir, path), move=uses[source] == 0 and path not in products)
        for folder in folders_of(top, source):
            os.makedirs(os.path.join(workdir, path, folder), exist_ok=True)


def folders_of(top: str, source: str) -> list[str]:
    """The folders in what another task made: empty ones do not travel by themselves."""
    if not source.startswith("out/"):
        return []
    with open(os.path.join(top, os.path.dirname(source), "made.json"), encoding="utf-8") as listed:
        made: list[dict[str, Any]] = json.load(listed)
    return [folder for entry in made if entry["name"] == os.path.basename(source) for folder in entry.get("folders", [])]


def place(source: str, target: str, *, move: bool) -> None:
    """Moves or copies a file or folder. A file that the job writes to is a copy: an input may be read only."""
    if os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if move:
        try:
            return os.rename(source, target)
        except OSError:
            # A folder that belongs to another user cannot be moved.
            pass
    if os.path.isdir(source):
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
        os.chmod(target, os.stat(source).st_mode | stat.S_IWUSR)


def collect(spec: dict[str, Any], folder: str) -> None:
    """Puts what the job made into the folder that leaves the worker, with a list of it.

    Times are told as ages, because clocks of machines differ.
    """
    os.makedirs(folder)
    now = time.time()
    made: list[dict[str, Any]] = []
    for number, path in enumerate(spec["products"]):
        name = f"{number}-{re.sub('[^A-Za-z0-9._-]', '_', os.path.basename(path))[-80:]}"
        target = os.path.join(folder, name)
        if os.path.isdir(path):
            shutil.copytree(path, target, copy_function=link, ignore_dangling_symlinks=True)
            folders, files = [], []
            for at, _, names in os.walk(target):
                folders.append(os.path.relpath(at, target))
                files += [{"path": os.path.relpath(os.path.join(at, file), target)} for file in names]
            for file in files:
                file.update(about(os.path.join(path, file["path"]), now))
            made.append({"path": path, "name": name, "folders": sorted(folders), "files": files})
        elif os.path.isfile(path):
            link(path, target)
            made.append({"path": path, "name": name, **about(path, now)})
    with open(os.path.join(folder, "made.json"), "w", encoding="utf-8") as listed:
        json.dump(made, listed)


def about(path: str, now: float) -> dict[str, Any]:
    """The age and the mode of a file."""
    status = os.stat(path)
    return {"age": now - status.st_mtime, "mode": stat.S_IMODE(status.st_mode)}


def link(source: str, target: str) -> None:
    """Another name for a file, or a copy where that is impossible. A link to a file becomes that file."""
    source = os.path.realpath(source)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def show_logs(logs: list[str]) -> None:
    """Prints the ends of the logs, because the files of a failed task do not leave the worker."""
    for path in logs:
        try:
            with open(path, "rb") as file:
                file.seek(max(os.path.getsize(path) - _LOG_BYTES, 0))
                content = file.read()
        except OSError:
            continue
        if content:
            print(f"==> {path} <==", content.decode(errors="replace"), sep="\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
