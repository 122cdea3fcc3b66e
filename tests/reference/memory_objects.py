"""Objects in memory, for tests of what stands on them: keeps the contract of tests/integration/test_objects.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters.objects import damaged


class Cut(BaseException):
    """The process is killed."""


class MemoryObjects:
    """Objects in a dict. `cut_at`: that many more objects are put or removed, then `Cut`."""

    def __init__(self) -> None:
        self.there: dict[str, bytes] = {}
        self.cut_at: int | None = None

    def put(self, objects: Sequence[tuple[str, bytes]]) -> None:
        for path, content in objects:
            if self.there.get(path, content) != content:
                raise damaged(path)
            self._tick()
            self.there[path] = content

    def replace(self, path: str, content: bytes) -> None:
        self._tick()
        self.there[path] = content

    def get(self, path: str) -> bytes | None:
        return self.there.get(path)

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted(path for path in self.there if path.startswith(prefix)))

    def remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            if path in self.there:
                self._tick()
                del self.there[path]

    def _tick(self) -> None:
        if self.cut_at is not None:
            if self.cut_at == 0:
                self.cut_at = None
                raise Cut
            self.cut_at -= 1
