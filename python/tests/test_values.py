"""What travels: values that stay on the grid, arguments that many calls have, results in other formats."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from test_executor import OwnError, add, fails, until

from hedgerow import Executor, Files, LocalGrid, RemoteError, progress
from hedgerow._pickling import write_call
from hedgerow._showing import draw
from hedgerow._values import load


def make(size: int) -> bytes:
    return b"x" * size


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_value_stays_on_the_grid_until_it_is_asked_for(executor: Executor, size: int) -> None:
    fetched = []
    download = executor._engine.grid.download
    executor._engine.grid.download = lambda *args: fetched.append(args) or download(*args)  # type: ignore[method-assign,func-returns-value]
    stays = executor.options(by_reference=True)
    value = stays.submit(make, size)
    lengths = [executor.submit(len, value) for _ in range(4)]
    assert [length.result() for length in lengths] == [size] * 4
    assert value.exception() is None and fetched == []
    assert value.result() == b"x" * size
    assert value.result() is value.result()
    assert len(fetched) == (1 if size > 100_000 else 0)
    with pytest.raises(OwnError, match="early"):
        stays.submit(fails, "early").result()


def test_a_value_on_the_grid_is_found_by_another_client(grid: LocalGrid) -> None:
    executor = Executor(grid=grid)
    executor.options(by_reference=True).submit(make, 500_000).exception()
    job = executor.job
    executor.detach()
    with Executor.attach(job, grid=grid) as again:
        (value,) = again.futures
        assert again.submit(len, value).result() == 500_000
        assert len(value.result()) == 500_000
    assert len(value.result()) == 500_000


def test_one_object_travels_once_for_many_calls(executor: Executor) -> None:
    uploads = []
    upload = executor._engine.grid.upload
    executor._engine.grid.upload = lambda content: uploads.append(len(content)) or upload(content)  # type: ignore[method-assign,func-returns-value]
    large, text = bytearray(200_000), b"t" * 300_000
    futures = [executor.submit(len, large) for _ in range(20)] + [executor.submit(len, text) for _ in range(20)]
    assert [future.result() for future in futures] == [200_000] * 20 + [300_000] * 20
    assert len([size for size in uploads if 190_000 < size < 210_000]) == 1
    assert len([size for size in uploads if 290_000 < size < 310_000]) == 1


def test_one_object_is_in_memory_once_for_many_calls() -> None:
    large, text = bytearray(200_000), b"t" * 300_000
    payloads = [write_call(None, (large, text), {}, lambda _: None) for _ in range(3)]
    assert all(len(payload.pickle) < 1000 for payload in payloads)
    for blobs in zip(*(payload.blobs for payload in payloads)):
        assert all(blob is blobs[0] for blob in blobs)


def test_arrays_are_written_without_copies() -> None:
    numpy = pytest.importorskip("numpy")
    from hedgerow._values import dump

    values = numpy.arange(500_000)
    parts = dump(values, "pickle")
    assert len(parts[0]) < 500 and numpy.shares_memory(numpy.frombuffer(parts[1], dtype=values.dtype), values)
    again = load(parts, "pickle")
    assert numpy.shares_memory(again, values)


def test_a_graph_is_sent_at_once_and_each_call_runs_once(executor: Executor, tmp_path: Path) -> None:
    def note(name: str, *values: int) -> int:
        with open(tmp_path / name, "a") as file:
            file.write("x")
        return sum(values) + 1

    sent = []
    extend = executor._engine.grid.extend
    executor._engine.grid.extend = lambda *args: sent.append(args[1]) or extend(*args)  # type: ignore[method-assign,func-returns-value]
    first = executor.call(note, "first")
    middle = [executor.call(note, f"middle{i}", first) for i in range(3)]
    last = executor.call(note, "last", *middle)
    executor.flush()
    assert sent == [] and "not started" in repr(last)
    assert last.result(timeout=60) == 7
    assert [len(tasks) for tasks in sent] == [5]
    assert first.result() == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ["first", "middle0", "middle1", "middle2", "last"], "x"
    )
    # As an argument of a call that is sent a held one is sent, too.
    assert executor.submit(add, executor.call(add, 1, 2), 3).result() == 6


def test_a_long_chain_is_no_deep_recursion(executor: Executor) -> None:
    value = executor.call(add, 0, 0)
    chain = [value]
    for _ in range(2000):
        chain.append(executor.call(add, chain[-1], 1))
    order = executor._engine._in_order(chain[-1].held)  # type: ignore[arg-type]
    assert [submitted.call for submitted in order] == chain


def test_a_held_call_is_refused_after_the_shutdown(grid: LocalGrid) -> None:
    with Executor(grid=grid) as executor:
        held = executor.call(add, 1, 2)
        cancelled = executor.call(add, 1, 2)
        assert cancelled.cancel()
        assert cancelled.start().cancelled()
    with pytest.raises(RuntimeError, match="shutdown"):
        held.result()


def test_files_come_as_files(grid: LocalGrid, tmp_path: Path) -> None:
    def leave(large: int) -> list[str]:
        Path("sub").mkdir()
        Path("sub/large.bin").write_bytes(b"l" * large)
        Path("note.txt").write_text("written")
        return ["note.txt", "sub/large.bin"]

    with Executor(grid=grid, result_format="files") as executor:
        for large in (10, 2_000_000):
            files = executor.submit(leave, large).result()
            assert dict(files) == {"note.txt": b"written", "sub/large.bin": b"l" * large}
        paths = files.save(tmp_path)
        assert [Path(path).read_bytes()[:3] for path in paths] == [b"wri", b"lll"]
        with pytest.raises(RemoteError, match="not in the call's working directory"):
            executor.submit(lambda: "/etc/passwd").result()
        with pytest.raises(RemoteError, match="OwnError: told"):
            executor.submit(fails, "told").result()
    with pytest.raises(ValueError, match="leads out"):
        Files({"../up": memoryview(b"")}).save(tmp_path)


def test_tables_come_as_tables(grid: LocalGrid) -> None:
    pyarrow = pytest.importorskip("pyarrow")

    def table(rows: int) -> object:
        import pyarrow

        return pyarrow.table({"a": range(rows)})

    with Executor(grid=grid, result_format="arrow") as executor:
        first = executor.submit(table, 100_000)
        assert first.result().equals(pyarrow.table({"a": range(100_000)}))
        doubled = executor.submit(lambda one: one.append_column("b", one["a"]), first).result()
        assert doubled.column_names == ["a", "b"]
        with pytest.raises(RemoteError, match="is for tables, and not for int"):
            executor.submit(add, 1, 2).result()


def test_other_formats_than_pickle_unpickle_nothing(grid: LocalGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    with Executor(grid=grid, result_format="json") as executor:
        first = executor.submit(dict, a=1)
        second = executor.submit(lambda known: list(known), first)
        failing = executor.submit(fails, "told")
        monkeypatch.setattr(pickle, "loads", lambda *args, **named: pytest.fail("something was unpickled"))
        assert (first.result(), second.result()) == ({"a": 1}, ["a"])
        assert isinstance(failing.exception(), RemoteError)


def test_what_is_shown_of_a_job(executor: Executor) -> None:
    first = executor.submit(add, 1, 2)
    futures = [executor.submit(add, first, i) for i in range(3)]
    assert sorted(future.result() for future in progress(futures)) == [3, 4, 5]
    dot = until("the picture", lambda: str(executor.picture()))
    assert dot.startswith("digraph") and dot.count("->") == 3 and 'label="add"' in dot
    assert "4 done" in executor._repr_html_() and f"hedge job {executor.job}" in executor._repr_html_()
    assert executor.picture()._repr_mimebundle_()["text/plain"].startswith("digraph")


def test_many_calls_are_drawn_by_function() -> None:
    groups = [{"id": f"load-0000000a-{at}-1", "waits_for": []} for at in range(300)]
    groups += [{"id": f"fold-0000000a-{300 + at}-1", "waits_for": [at]} for at in range(300)]
    state = {"failed": 0, "done": 1, "running": 0, "tasks": 1}
    dot = str(draw([{**group, **state} for group in groups]))
    assert dot.count("->") == 1 and "load (300 calls)" in dot and "fold (300 calls)" in dot
