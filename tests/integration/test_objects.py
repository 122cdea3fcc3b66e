"""Objects in a folder and in a bucket keep one contract; the bucket is a real S3 server's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_objects import MemoryObjects
from s3_server import s3_server

from adapters.objects import FolderObjects
from adapters.s3_objects import bucket_objects
from billing.objects import Objects
from metering.refusal import Refusal, Unavailable


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3") / "served") as uri:
        yield uri


@pytest.fixture(params=["folder", "bucket", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return FolderObjects(tmp_path / "objects")
    if request.param == "memory":
        return MemoryObjects()
    uri: str = request.getfixturevalue("bucket")
    return bucket_objects(uri.replace("tally?", f"tally/{tmp_path.name}?"), "TALLY_ARCHIVE")


def test_objects_come_back_as_they_were_put(objects: Objects) -> None:
    objects.put([("a/b/one", b"1"), ("a/two", b""), ("three", b"3" * 100_000)])
    assert [objects.get(name) for name in ("a/b/one", "a/two", "three")] == [b"1", b"", b"3" * 100_000]
    assert objects.get("a/b") is None
    assert objects.get("a/b/one/more") is None
    assert objects.get("four") is None


def test_the_same_bytes_may_be_put_again_and_other_bytes_are_damage_named(objects: Objects) -> None:
    objects.put([("a/one", b"1")])
    objects.put([("a/one", b"1"), ("a/two", b"2")])
    with pytest.raises(Refusal) as refused:
        objects.put([("a/one", b"x")])
    assert refused.value.code == "damaged_object"
    assert refused.value.where.endswith("a/one")
    assert objects.get("a/one") == b"1"


def test_a_checkpoint_is_replaced(objects: Objects) -> None:
    objects.replace("log/checkpoint", b"1")
    objects.replace("log/checkpoint", b"2")
    assert objects.get("log/checkpoint") == b"2"


def test_names_are_listed_whole_and_sorted_by_code_points(objects: Objects) -> None:
    names = ["a-b/1", "a/2", "a/10", "a/b/3", "a/b.c", "b", "é/1"]
    objects.put([(name, b"x") for name in names])
    assert list(objects.list("")) == sorted(names)
    assert list(objects.list("a/")) == sorted(name for name in names if name.startswith("a/"))
    assert list(objects.list("a/b")) == ["a/b.c", "a/b/3"]
    assert list(objects.list("nothing/here")) == []


def test_what_is_removed_is_gone_and_may_be_removed_again(objects: Objects) -> None:
    objects.put([("a/one", b"1"), ("a/two", b"2")])
    objects.remove(["a/one", "a/never"])
    objects.remove(["a/one"])
    assert list(objects.list("")) == ["a/two"]


def test_many_objects_at_once_are_all_there(objects: Objects) -> None:
    objects.put([(f"many/{n % 7}/{n}", str(n).encode()) for n in range(100)])
    assert sum(1 for _ in objects.list("many/")) == 100
    assert objects.get("many/4/67") == b"67"


def test_strays_of_a_killed_writer_are_not_listed(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    objects.put([("a/one", b"1")])
    (tmp_path / "a/.one.0123.new").write_bytes(b"half")
    assert list(objects.list("")) == ["a/one"]


def test_a_bucket_that_refuses_says_so_without_its_secrets(bucket: str) -> None:
    wrong = bucket.replace("only-for-tests", "wrong-secret")
    with pytest.raises(Unavailable) as down:
        bucket_objects(wrong, "TALLY_ARCHIVE").put([("a", b"1")])
    assert down.value.code == "archive_unavailable"
    said = f"{down.value.what} {down.value.where} {down.value.remedy}"
    assert "wrong-secret" not in said
    assert "s3://tally/a" in said


@pytest.mark.parametrize("uri", ["ftp://somewhere/x", "s3://user:hidden@bucket?nonsense=1", "s3://"])
def test_a_place_that_is_no_bucket_is_refused_without_its_secrets(uri: str) -> None:
    with pytest.raises(Refusal) as refused:
        bucket_objects(uri, "TALLY_ARCHIVE")
    assert (refused.value.code, refused.value.where) == ("bad_object_store", "TALLY_ARCHIVE")
    assert "hidden" not in refused.value.what
