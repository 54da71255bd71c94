"""What a call takes and how it is treated, as keys of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Optional, Union


@dataclass(frozen=True)
class CallOptions:
    """What a call takes and how it is treated; docs/jobfile.md describes the same keys.

    A call that asks for anything but processors and labels has a process of its own, because limits and retries are those
    of one process.
    """

    #: Processors.
    cpus: Optional[float] = None
    #: Most memory, like ``"4 GiB"`` or in bytes; a call that uses more fails.
    memory: Union[str, int, None] = None
    #: GPUs that the call has for itself.
    gpus: Optional[int] = None
    #: Longest running time, like ``"10min"`` or in seconds; a call that takes longer fails.
    time_limit: Union[str, float, None] = None
    #: Whether other work waits for this call, so that it gets redundant attempts.
    critical: bool = False
    #: Further tries after the call's process crashed or went beyond a limit. What a call raises is its result.
    retries: int = 0
    #: Labels that a worker must carry.
    labels: Optional[Mapping[str, str]] = None
    #: Environment variables.
    env: Optional[Mapping[str, str]] = None
    #: Whether the call has a new process for itself, however short it is.
    fresh: bool = False
    #: Whether the value stays on the grid until ``result()`` asks for it. As an argument it goes from worker to worker.
    by_reference: bool = False

    def __post_init__(self) -> None:
        """Raises TypeError and ValueError, before anything is sent."""
        for name in ("cpus", "gpus", "retries"):
            value = getattr(self, name)
            if value is None and name != "retries":
                continue
            kinds = (int, float) if name == "cpus" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise TypeError(f"{name} is a number, and not {value!r}")
            if value < 0:
                raise ValueError(f"{name} is not negative, and not {value!r}")
        texts: dict[str, tuple[type, ...]] = {"memory": (str, int), "time_limit": (str, int, float)}
        for name, allowed in texts.items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, allowed)):
                raise TypeError(f"{name} is a text with a unit or a number, and not {value!r}")
            if isinstance(value, (int, float)) and value <= 0:
                raise ValueError(f"{name} is more than 0, and not {value!r}")
        for name in ("critical", "fresh", "by_reference"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is True or False, and not {getattr(self, name)!r}")
        for name in ("labels", "env"):
            value = getattr(self, name)
            if value is None:
                continue
            maps = isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)
            if not maps:
                raise TypeError(f"{name} maps texts to texts, and is not {value!r}")
            # The caller may go on to change it.
            object.__setattr__(self, name, dict(value))
        values = (getattr(self, field.name) for field in fields(self))
        key = tuple(tuple(sorted(value.items())) if isinstance(value, Mapping) else value for value in values)
        # Each call asks for it.
        object.__setattr__(self, "_key", key)

    def __hash__(self) -> int:
        return hash(self.key())

    def key(self) -> tuple[object, ...]:
        """Tells options apart."""
        known: tuple[object, ...] = self.__dict__["_key"]
        return known

    def one_process(self) -> bool:
        """Whether calls need a process each."""
        own = self.memory, self.gpus, self.time_limit
        flags = self.fresh, self.by_reference, self.critical, self.retries > 0
        return any(flags) or any(value is not None for value in own)

    def task(self) -> dict[str, Any]:
        """The keys of a task that follow from this."""
        keys: dict[str, Any] = {"retries": self.retries}
        resources: dict[str, Any] = {}
        if self.cpus is not None:
            resources["cpus"] = self.cpus
        if self.memory is not None:
            resources["memory"] = self.memory if isinstance(self.memory, str) else f"{self.memory} B"
        if self.gpus is not None:
            resources["gpus"] = self.gpus
        if resources:
            keys["resources"] = resources
        if self.time_limit is not None:
            limit = self.time_limit
            keys["time_limit"] = limit if isinstance(limit, str) else f"{max(round(limit * 1000), 1)}ms"
        if self.critical:
            keys["critical"] = True
        if self.labels:
            keys["labels"] = dict(self.labels)
        return keys
