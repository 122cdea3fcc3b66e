"""Objects in an S3 bucket, through pyarrow's file system.

    s3://BUCKET[/PREFIX][?region=…&endpoint_override=HOST:PORT&scheme=http…]

as `pyarrow.fs.FileSystem.from_uri` takes it; credentials come from the environment as with any S3 client. An object
appears whole or not at all, so nothing is written beside and renamed. S3 knows no "put if absent" that every server
has: an object is looked for first, and left alone when it holds the same bytes. Two writers of one name write the same.

What the server says is passed on; a URI's credentials are not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from adapters.objects import damaged, each, walk
from metering.refusal import Refusal, Unavailable

#: Requests under way beside each other: an object store answers each in some 20 ms, however many there are.
_THREADS = 16


def bucket_objects(uri: str, where: str) -> BucketObjects:
    """The objects of an s3:// URI; `where` names the setting. Refusals: bad_object_store."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.hostname:
        raise Refusal(
            "bad_object_store",
            f"a folder or s3://BUCKET belongs here, not {parts.scheme}://{parts.hostname or ''}",
            where=where,
            remedy="s3://bucket/prefix?region=…",
        )
    try:
        system, base = fs.FileSystem.from_uri(_at_once(uri))
    except (pa.ArrowInvalid, OSError, ValueError) as fault:
        raise Refusal(
            "bad_object_store",
            f"the s3:// URI can't be used: {_without_secrets(str(fault), uri)}",
            where=where,
            remedy="s3://bucket/prefix?region=…&endpoint_override=HOST:PORT&scheme=https",
        ) from None
    return BucketObjects(system, base.rstrip("/"), f"s3://{base}")


class BucketObjects:
    """Objects below `base` (bucket and prefix) of an S3 file system; `shown` is how messages call it."""

    def __init__(self, system: fs.FileSystem, base: str, shown: str) -> None:
        self.system = system
        self.base = base
        self._shown = shown

    def put(self, objects: Sequence[tuple[str, bytes]]) -> None:
        each(self._put_one, objects, _THREADS)

    def replace(self, path: str, content: bytes) -> None:
        with self._translated(path), self.system.open_output_stream(self._name(path)) as stream:
            stream.write(content)

    def get(self, path: str) -> bytes | None:
        with self._translated(path):
            try:
                with self.system.open_input_file(self._name(path)) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def list(self, prefix: str) -> Iterator[str]:
        return walk(self._children, prefix)

    def remove(self, paths: Sequence[str]) -> None:
        each(self._remove_one, paths, _THREADS)

    def arrow(self) -> tuple[fs.FileSystem, str]:
        """See `adapters.objects.ArrowObjects`."""
        return self.system, self.base

    def _put_one(self, item: tuple[str, bytes]) -> None:
        path, content = item
        there = self.get(path)
        if there is None:
            self.replace(path, content)
        elif there != content:
            raise damaged(f"{self._shown}/{path}")

    def _remove_one(self, path: str) -> None:
        with self._translated(path), contextlib.suppress(FileNotFoundError):
            self.system.delete_file(self._name(path))

    def _children(self, folder: str) -> Sequence[tuple[str, bool]]:
        selector = fs.FileSelector(f"{self.base}/{folder}".rstrip("/"), allow_not_found=True)
        with self._translated(folder):
            found = self.system.get_file_info(selector)
        return [(info.base_name, info.type == fs.FileType.Directory) for info in found]

    def _name(self, path: str) -> str:
        assert path[0] != "/", "names are relative"
        assert ".." not in path.split("/"), "names are built from checked words"
        return f"{self.base}/{path}"

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(
                "archive_unavailable",
                f"the bucket does not take or give objects: {error}",
                where=f"{self._shown}/{path}",
                remedy="check bucket, credentials and network; intake goes on by itself",
            ) from None


def _at_once(uri: str) -> str:
    """The URI, with small objects written by one request instead of three."""
    if "allow_delayed_open=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def _without_secrets(said: str, uri: str) -> str:
    """`said` without the URI, which may carry a key and its secret."""
    user = urlsplit(uri)
    for secret in (uri, user.netloc, user.password, user.username):
        if secret:
            said = said.replace(secret, "…")
    return said
