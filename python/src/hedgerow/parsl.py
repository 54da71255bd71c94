"""An executor for Parsl: apps run on a grid, without a shared file system.

>>> import parsl, hedgerow.parsl
>>> parsl.load(parsl.Config(executors=[hedgerow.parsl.HedgerowExecutor(local=True)]))  # doctest: +SKIP

Apps take ``parsl_resource_specification`` with Parsl's own keys ``cores``, ``memory`` in MB and ``gpus``, and with those of
:class:`hedgerow.CallOptions`: ``time_limit``, ``critical``, ``retries``, ``labels``, ``env``, ``fresh``.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import fields
from typing import Any, Callable, Optional

from parsl.executors.base import ParslExecutor
from parsl.executors.errors import InvalidResourceSpecification
from parsl.monitoring.radios.base import RadioConfig

from ._executor import Executor
from ._options import CallOptions

#: What Parsl calls it, and what it is here.
_OWN_NAMES = {"cores": "cpus"}
#: Modules that Parsl's apps need; an interpreter imports them once.
_PRELOADED = ("parsl.app.bash", "parsl.app.python", "parsl.data_provider.files")


class HedgerowExecutor(ParslExecutor):  # type: ignore[misc]
    """Runs apps as calls of a :class:`hedgerow.Executor`.

    A worker needs the packages that apps import, and Parsl for those that run a shell. An app starts in a scratch directory:
    what it writes there is dropped, so it returns what others are to have.
    """

    def __init__(
        self,
        label: str = "hedgerow",
        *,
        executor: Optional[Executor] = None,
        storage_access: Optional[list[Any]] = None,
        working_dir: Optional[str] = None,
        remote_monitoring_radio: Optional[RadioConfig] = None,
        **arguments: Any,
    ) -> None:
        """``executor`` is one that exists, else the arguments are those of :class:`hedgerow.Executor`."""
        ParslExecutor.__init__(self)
        self.label = label
        self.executor = executor
        self.storage_access = storage_access
        self.working_dir = working_dir
        self.remote_monitoring_radio = remote_monitoring_radio
        self.arguments = arguments
        self._running: Optional[Executor] = None

    def __repr__(self) -> str:
        return f"<HedgerowExecutor {self.label!r}>"

    def start(self) -> None:
        """Starts nothing before the first app."""
        self._running = self.executor or Executor(**{"name": "parsl", "preload": _PRELOADED, **self.arguments})

    def submit(
        self, func: Callable[..., Any], resource_specification: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Has an app run."""
        if self._running is None:
            raise RuntimeError(f"the executor {self.label!r} was not started; parsl.load starts it")
        options = options_of(resource_specification)
        target = self._running if options is None else self._running.options(**options)
        return target.submit(func, *args, **kwargs)

    def shutdown(self, block: bool = True) -> None:
        """Takes no more apps; with ``block`` it waits for those that run."""
        running, self._running = self._running, None
        if running is not None and running is not self.executor:
            running.shutdown(wait=block)
        super().shutdown()

    def monitor_resources(self) -> bool:
        """The grid measures what apps use; Parsl's monitoring needs a network from workers to this machine."""
        return False


def options_of(specification: Mapping[str, Any]) -> Optional[dict[str, Any]]:
    """A resource specification of Parsl as options of a call. Raises InvalidResourceSpecification."""
    if not specification:
        return None
    known = {field.name for field in fields(CallOptions)}
    options = {_OWN_NAMES.get(name, name): value for name, value in specification.items()}
    unknown = set(options) - known
    if unknown:
        names = sorted(known - {"cpus"} | set(_OWN_NAMES))
        raise InvalidResourceSpecification(unknown, f"an app was not submitted; what it can ask for is {', '.join(names)}")
    if isinstance(options.get("memory"), int):
        options["memory"] = f"{options['memory']} MB"
    try:
        CallOptions(**options)
    except (TypeError, ValueError) as error:
        raise InvalidResourceSpecification(set(specification), f"an app was not submitted; {error}") from error
    return options
