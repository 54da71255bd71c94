"""How many calls share a process: as many as have little to do, found by measuring.

A call that is not known to be short has a process of its own, so that no call waits for a long one. What is held back to
be put together is held for a second at most.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Calls that take longer than this never share a process, seconds.
SHORT_S = 0.05
#: Calls that share a process take about so long together at most, seconds.
_TOGETHER_S = 0.2
#: A process of its own pays for at least this much work, seconds: about what starting an interpreter takes.
_WORTH_S = 0.02
#: Calls of one process, at most: their outcomes stay small enough to be read at once.
CALLS_MAX = 5000
#: How long calls are held back at most, seconds: until then they are lost if this process is killed.
HOLD_S = 1.0
#: What calls that share a process may take before it is given up: the longer of these, seconds and times the estimate.
_DEADLINE_S = 1.0
_DEADLINE_TIMES = 10
#: Weight of a new time in the mean.
_WEIGHT = 0.2


@dataclass
class CallTimes:
    """What calls of one kind took so far."""

    #: Mean time of a call in its process, seconds; None before the first one.
    mean: float | None = None
    #: The longest recent time of a call; older ones fade.
    longest: float = 0.0
    #: Tasks of this kind that have not ended.
    running: int = 0

    def note(self, seconds: float) -> None:
        """A call took so long."""
        self.mean = seconds if self.mean is None else self.mean + _WEIGHT * (seconds - self.mean)
        self.longest = max(seconds, self.longest * (1 - _WEIGHT / 10))

    def is_short(self) -> bool:
        """Whether calls may share a process."""
        return self.mean is not None and self.longest <= SHORT_S

    def deadline(self, calls: int) -> float:
        """When a process with so many calls is given up, seconds after its start."""
        return max(_DEADLINE_S, _DEADLINE_TIMES * calls * (self.mean or 0.0))


def plan(count: int, times: CallTimes, slots: int, held_s: float, most: int | None = None) -> list[int]:
    """Sizes of the processes that of ``count`` waiting calls are started now, oldest first; the rest is held back.

    ``held_s`` says for how long the oldest has waited, ``slots`` how many processes the grid runs at once, ``most`` how
    many processes may be started, if not any number.
    """
    late = held_s >= HOLD_S
    most = count if most is None else max(min(most, count), 0)
    if times.mean is not None and not times.is_short():
        return [1] * most
    if times.mean is None:
        return [1] * (most if late else min(most, max(slots - times.running, 0)))
    free = 2 * slots - times.running
    if free <= 0:
        if not late:
            return []
        free = 1
    mean = max(times.mean, 1e-6)
    wanted = max(1, min(free, int(count * mean / _WORTH_S) + 1))
    size = min(-(-count // wanted), max(int(_TOGETHER_S / mean), 1), CALLS_MAX)
    sizes: list[int] = []
    while count > 0 and len(sizes) < most and (late or len(sizes) < free):
        sizes.append(min(size, count))
        count -= sizes[-1]
    return sizes
