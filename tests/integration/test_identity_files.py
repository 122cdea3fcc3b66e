from __future__ import annotations

import os
import re
import stat
import threading
from pathlib import Path

import pytest

from metering.identity import LaneKey, hash_secret, id_bytes, id_text, new_id, new_secret, node_secret
from metering.refusal import Refusal


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "lane.pem"
    made = LaneKey.load_or_create(file)
    assert LaneKey.public_bytes(LaneKey.load_or_create(file)) == LaneKey.public_bytes(made)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["lane.pem"]


def test_two_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    keys: list[bytes] = []

    def start() -> None:
        keys.append(LaneKey.public_bytes(LaneKey.load_or_create(tmp_path / "lane.pem")))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 1


def test_a_file_that_is_no_key_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "lane.pem"
    file.write_text("nonsense")
    with pytest.raises(Refusal) as refused:
        LaneKey.load_or_create(file)
    assert refused.value.code == "bad_key_file"
    assert file.read_text() == "nonsense"


def test_the_sidecars_of_a_node_share_a_secret_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "node-secret"
    made = node_secret(file)
    assert len(made) == 32
    assert node_secret(file) == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(made[:31])
    with pytest.raises(Refusal) as refused:
        node_secret(file)
    assert refused.value.code == "bad_node_secret"
    assert file.read_bytes() == made[:31]


def test_ids_do_not_repeat_and_are_written_as_uuids() -> None:
    ids = {new_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert {len(each) for each in ids} == {16}
    one = ids.pop()
    assert id_bytes(id_text(one)) == one
    with pytest.raises(Refusal):
        id_bytes("acme")


def test_a_forked_child_does_not_repeat_its_parents_ids() -> None:
    new_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, new_id())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 16) != new_id()
    os.close(reader)
    os.close(writer)


def test_a_secret_is_long_and_only_its_hash_is_kept() -> None:
    secret = new_secret()
    assert re.fullmatch(r"tg_[A-Za-z0-9_-]{43}", secret)
    assert len(hash_secret(secret)) == 32
    assert hash_secret(secret) != hash_secret(new_secret())
