"""Parsl's tests on a grid of this process: the file that their argument `--config` names."""

from parsl.config import Config

import hedgerow
from hedgerow.parsl import HedgerowExecutor

_grid = hedgerow.LocalGrid(cpus=4)


def fresh_config() -> Config:
    """What the tests load."""
    return Config(executors=[HedgerowExecutor(grid=_grid)])
