"""Pictures, progress and tables for people."""

from __future__ import annotations

import html
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, as_completed
from typing import Any, Optional

from ._tasks import parse_label

#: Calls that are drawn one by one; of more, those of the same function that wait for the same are drawn as one.
_SINGLE_MAX = 200
#: Drawing takes so long at most, seconds.
_DRAWN_WITHIN_S = 60
#: A line of progress is written so often, seconds.
_LINE_EVERY_S = 0.2
_COLOURS = {"failed": "#e5484d", "done": "#46a758", "running": "#3e63dd", "waits": "#d9d9d9"}


class Picture:
    """A graph of calls. ``str()`` is its text for Graphviz; notebooks draw it where the program ``dot`` is installed."""

    def __init__(self, dot: str) -> None:
        self._dot = dot

    def __str__(self) -> str:
        return self._dot

    def svg(self) -> str:
        """The picture as SVG. Raises FileNotFoundError where the program ``dot`` is not installed."""
        dot = shutil.which("dot")
        if dot is None:
            raise FileNotFoundError("the program `dot` is not installed; install Graphviz, or draw str() of this elsewhere")
        drawn = subprocess.run(
            [dot, "-Tsvg"], input=self._dot, capture_output=True, text=True, timeout=_DRAWN_WITHIN_S, check=True
        )
        return drawn.stdout

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """For notebooks."""
        shown = {"text/plain": self._dot}
        if shutil.which("dot") is not None:
            shown["image/svg+xml"] = self.svg()
        return shown


def draw(groups: Iterable[dict[str, Any]]) -> Picture:
    """A picture of groups of a job, as the gateway lists them."""
    listed = list(groups)
    keys: list[Any] = list(range(len(listed)))
    if len(listed) > _SINGLE_MAX:
        for at, group in enumerate(listed):
            upstream = frozenset(keys[other] for other in group["waits_for"])
            keys[at] = hash((_function(group), upstream))
    nodes: dict[Any, list[dict[str, Any]]] = {}
    for key, group in zip(keys, listed):
        nodes.setdefault(key, []).append(group)
    names = {key: f"n{at}" for at, key in enumerate(nodes)}
    edges = {(names[keys[other]], names[key]): None for key, group in zip(keys, listed) for other in group["waits_for"]}
    lines = ["digraph calls {", "  rankdir=LR;", '  node [shape=box, style="rounded,filled", fontname="sans-serif"];']
    for key, members in nodes.items():
        lines.append(f"  {names[key]} [label={_quoted(_title(members))}, fillcolor={_quoted(_colour(members))}];")
    lines += [f"  {one} -> {other};" for one, other in edges]
    return Picture("\n".join([*lines, "}", ""]))


def _function(group: dict[str, Any]) -> str:
    parsed = parse_label(group["id"])
    return str(group["id"]) if parsed is None else parsed[0]


def _title(members: list[dict[str, Any]]) -> str:
    parsed = [parse_label(group["id"]) for group in members]
    calls = sum(1 if one is None else one[3] for one in parsed)
    name = _function(members[0])
    return name if calls == 1 else f"{name} ({calls} calls)"


def _colour(members: list[dict[str, Any]]) -> str:
    if any(group["failed"] for group in members):
        return _COLOURS["failed"]
    if all(group["done"] == group["tasks"] for group in members):
        return _COLOURS["done"]
    return _COLOURS["running" if any(group["running"] for group in members) else "waits"]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def progress(futures: Iterable[Future[Any]], desc: str = "calls") -> Iterator[Future[Any]]:
    """Gives futures as they come to their end, and shows how many have: with tqdm where it is installed, else as a line on
    a terminal. Calls that were not started are.
    """
    listed = list(futures)
    for future in listed:
        getattr(future, "start", lambda: None)()
    completed = as_completed(listed)
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _with_line(completed, len(listed), desc)
    return iter(tqdm(completed, total=len(listed), desc=desc))


def _with_line(completed: Iterator[Future[Any]], count: int, desc: str) -> Iterator[Future[Any]]:
    terminal = sys.stderr.isatty()
    shown_at, began = float("-inf"), time.monotonic()
    for done, future in enumerate(completed, 1):
        now = time.monotonic()
        if terminal and (done == count or now - shown_at >= _LINE_EVERY_S):
            shown_at = now
            print(f"\r{desc}: {done} of {count}, {now - began:.0f} s", end="", file=sys.stderr, flush=True)
        yield future
    if terminal:
        print(file=sys.stderr)


def show_job(view: dict[str, Any]) -> str:
    """A job's view as a table in HTML."""
    left: Optional[float] = view.get("left_ms")
    ended = view["done"] + view["failed"]
    bar = f'<progress max="{max(view["tasks"], 1)}" value="{ended}"></progress>'
    state = view["state"] + ("" if left is None else f", about {left / 1000:.0f} s left")
    rows = {
        "job": f"{view['id']} ({view['name']})",
        "state": state,
        "tasks": f"{view['done']} done, {view['running']} running, {view['failed']} failed, {view['tasks']} in all",
        "waits": "; ".join(view["waits"]),
        "more": f"hedge job {view['id']}, and in a browser: hedge ui",
    }
    told = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in rows.items() if text)
    return f"<table>{told}<tr><th></th><td>{bar}</td></tr></table>"
