"""Snakemake's own tests of executors, without a shared file system, here and with the local executor beside it."""

from __future__ import annotations

import sys
from typing import Any, Optional

import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase

from hedgerow import LocalGrid
from snakemake_executor_plugin_hedgerow import ExecutorSettings


class TestOnAGrid(TestWorkflowsLocalStorageBase):  # type: ignore[misc]
    """The tests of ``snakemake.common.tests``."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def _on(self, grid: LocalGrid) -> None:
        self._grid = grid

    def get_executor(self) -> str:
        return "hedgerow"

    def get_executor_settings(self) -> Optional[Any]:
        return ExecutorSettings(ticket=self._grid.ticket, python=sys.executable)

    def get_assume_shared_fs(self) -> bool:
        return False


class TestLocally(TestWorkflowsLocalStorageBase):  # type: ignore[misc]
    """The reference."""

    __test__ = True

    def get_executor(self) -> str:
        return "local"

    def get_executor_settings(self) -> Optional[Any]:
        return None
