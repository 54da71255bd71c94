"""What a worker needs to run calls, as one file: the module of this package that runs there, and cloudpickle."""

from __future__ import annotations

import functools
import io
import py_compile
import tempfile
import zipfile
from pathlib import Path

import cloudpickle

from . import _worker

#: The file's name in a task's scratch directory, which PYTHONPATH names.
NAME = "hedgerow.zip"
#: The module that is run.
MODULE = "hedgerow_worker"


@functools.lru_cache(maxsize=None)
def worker_bundle() -> bytes:
    """The file; the same bytes each time, so that the grid stores it once."""
    modules = {f"{MODULE}.py": Path(_worker.__file__)}
    package = Path(cloudpickle.__file__).parent
    for source in sorted(package.glob("*.py")):
        modules[f"cloudpickle/{source.name}"] = source
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as bundle:
        for name, source in modules.items():
            bundle.writestr(zipfile.ZipInfo(name), source.read_bytes())
            bundle.writestr(zipfile.ZipInfo(f"{name}c"), _compiled(source, name))
    return made.getvalue()


def _compiled(source: Path, name: str) -> bytes:
    """Bytecode of this version of Python, which is the worker's too; it is used without a look at the source."""
    with tempfile.TemporaryDirectory(prefix="hedgerow-") as folder:
        target = Path(folder, "compiled")
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(source), str(target), dfile=name, doraise=True, invalidation_mode=mode)
        return target.read_bytes()
