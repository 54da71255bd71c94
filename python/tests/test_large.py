"""Large arguments: they are hashed once, and calls on this machine map them."""

from __future__ import annotations

import hashlib

from hedgerow import Executor, LocalGrid
from hedgerow._pickling import blob

MIB = 1 << 20


def digest(content: bytearray) -> str:
    found = hashlib.sha256(content).hexdigest()
    content[0] ^= 1
    return found


def test_a_change_of_large_content_is_seen_wherever_it_is() -> None:
    content = bytearray(3 * MIB)
    first = blob(content)
    assert blob(content) is first and blob(bytes(content)) is first
    for place in (0, 70_000, 2 * MIB + 5, 3 * MIB - 1):
        content[place] ^= 1
        changed = blob(content)
        assert changed is not first and changed.content == content
        content[place] ^= 1
        assert blob(content) is first


def test_calls_of_a_local_grid_map_large_arguments(grid: LocalGrid) -> None:
    content = bytearray(b"seven b" * 300_000)
    other = bytearray(2 * MIB)
    with Executor(grid=grid) as executor, Executor(grid=grid) as second:
        uploads = []
        upload = executor._engine.grid.upload
        executor._engine.grid.upload = lambda content: uploads.append(len(content)) or upload(content)  # type: ignore[method-assign,func-returns-value]
        futures = [executor.submit(digest, content) for _ in range(4)]
        futures += [second.submit(digest, executor.put(content)), executor.submit(digest, other)]
        expected = [hashlib.sha256(content).hexdigest()] * 5 + [hashlib.sha256(other).hexdigest()]
        assert [future.result() for future in futures] == expected
        assert max(uploads, default=0) < MIB
        assert len(list(grid.shared.folder.iterdir())) == 2
        second.shutdown()
        assert len(list(grid.shared.folder.iterdir())) == 2
    assert list(grid.shared.folder.iterdir()) == []


def test_large_arguments_travel_where_no_file_can_be_shared() -> None:
    content = bytearray(b"eight by" * 300_000)
    with LocalGrid(cpus=2) as grid, Executor(grid=grid) as executor:
        grid.shared.folder.write_text("no folder")
        futures = [executor.submit(digest, content) for _ in range(3)]
        assert [future.result() for future in futures] == [hashlib.sha256(content).hexdigest()] * 3
    with LocalGrid(cpus=2, sandbox=True) as grid, Executor(grid=grid) as executor:
        assert executor.submit(len, content).result() == len(content)
        assert not grid.shared.folder.exists()
