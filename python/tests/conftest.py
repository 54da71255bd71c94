"""Grids of real processes for the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hedgerow import Executor, LocalGrid


@pytest.fixture(scope="session")
def grid() -> Iterator[LocalGrid]:
    """A grid that the tests share."""
    with LocalGrid(cpus=4) as grid:
        yield grid


@pytest.fixture
def executor(grid: LocalGrid) -> Iterator[Executor]:
    """An executor on it."""
    with Executor(grid=grid) as executor:
        yield executor
