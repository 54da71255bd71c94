"""What a worker needs to run calls, as one file: the modules of this package that run there, and cloudpickle."""

from __future__ import annotations

import functools
import io
import py_compile
import shutil
import tempfile
import zipfile
from pathlib import Path

import cloudpickle

#: The file's name in a task's scratch directory, which PYTHONPATH names.
NAME = "hedgerow.zip"
#: The module that runs calls.
MODULE = "hedgerow_calls._worker"
#: What the interpreter runs. As the main module, that one would be loaded once more where it was preloaded.
START = f"from {MODULE.replace('._', ' import _')} as worker; worker.start()"


@functools.lru_cache(maxsize=None)
def worker_bundle() -> bytes:
    """The file; the same bytes each time, so that the grid stores it once."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as bundle:
        for name, source in _modules().items():
            bundle.writestr(zipfile.ZipInfo(name), source.read_bytes())
            bundle.writestr(zipfile.ZipInfo(f"{name}c"), _compiled(source, name))
    return made.getvalue()


def write_modules(folder: Path) -> None:
    """Writes the same modules to a folder."""
    for name, source in _modules().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)


def _modules() -> dict[str, Path]:
    here = Path(__file__).parent
    modules = {"hedgerow_calls/__init__.py": here / "_remote.py"}
    modules.update({f"hedgerow_calls/{name}": here / name for name in ("_files.py", "_values.py", "_worker.py")})
    package = Path(cloudpickle.__file__).parent
    for source in sorted(package.glob("*.py")):
        modules[f"cloudpickle/{source.name}"] = source
    return modules


def _compiled(source: Path, name: str) -> bytes:
    """Bytecode of this version of Python, which is the worker's too; it is used without a look at the source."""
    with tempfile.TemporaryDirectory(prefix="hedgerow-") as folder:
        target = Path(folder, "compiled")
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(source), str(target), dfile=name, doraise=True, invalidation_mode=mode)
        return target.read_bytes()
