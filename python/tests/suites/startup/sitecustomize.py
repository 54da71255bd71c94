"""Registers the backend in the processes that joblib's tests start, as ``import hedgerow.joblib`` does in a script."""

from __future__ import annotations

import joblib.parallel


def _register() -> None:
    from hedgerow.joblib import HedgerowBackend

    class LocalBackend(HedgerowBackend):
        def __init__(self, nesting_level: int | None = None, **arguments: object) -> None:
            super().__init__(nesting_level, local=True, **arguments)

    joblib.parallel.BACKENDS["hedgerow"] = LocalBackend


_register()
