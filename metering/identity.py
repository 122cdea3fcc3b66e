"""Ids, secrets and keys: who and what is meant, without saying a name.

An id is 16 bytes from the system's random source and is written as a UUID. Nothing can be learnt from one, and none
can be guessed: an event's request id is what keeps a Merkle proof from letting its neighbour be guessed. The secret of
an API key is `tg_` and 256 random bits; only its SHA-256 is ever stored (a plain hash is enough where what is hashed
cannot be guessed). A lane or a node signs with an Ed25519 key, kept in a file of its own as PKCS #8 PEM, mode 0600.
"""

from __future__ import annotations

import os
import secrets
import uuid
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering.durable import create_once, make_folder
from metering.refusal import Refusal

SECRET_PREFIX = "tg_"  # noqa: S105 - what every secret begins with, no secret
_NODE_SECRET_BYTES = 32

# One system call for 256 ids instead of one each: at 15,000 requests a second that is worth having.
_POOL_IDS = 256
_pool: list[bytes] = []


def new_id() -> bytes:
    """16 unguessable bytes. Safe among threads, and a forked child never repeats its parent's."""
    try:
        return _pool.pop()
    except IndexError:
        fresh = os.urandom(16 * _POOL_IDS)
        _pool.extend(fresh[at : at + 16] for at in range(16, len(fresh), 16))
        return fresh[:16]


os.register_at_fork(after_in_child=_pool.clear)


def id_text(value: bytes) -> str:
    """An id as a UUID: `8d7f9c2e-…`, lower case."""
    return str(uuid.UUID(bytes=value))


def id_bytes(text: str) -> bytes:
    """The 16 bytes of an id written as a UUID; Refusal `bad_id` if it is none."""
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise Refusal("bad_id", f"{text!r} is not an id", remedy="give it as a UUID, 32 hex digits") from None


def new_secret() -> str:
    """A new API key's secret: `tg_` and 43 base64url characters (256 bits)."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> bytes:
    """What is stored and looked up instead of a secret: its SHA-256, 32 bytes."""
    return sha256(secret.encode()).digest()


def node_secret(path: Path) -> bytes:
    """The secret that the sidecars of a node share, 32 random bytes: what one made with it, all of them recognise.

    It is in `path` (mode 0600), made there, once, if there is none; two that start at once end with the same. Refusal
    `bad_node_secret` if the file holds something else.
    """
    if not path.exists():
        make_folder(path.parent)
        create_once(path, secrets.token_bytes(_NODE_SECRET_BYTES), mode=0o600)
    secret = path.read_bytes()
    if len(secret) != _NODE_SECRET_BYTES:
        raise Refusal(
            "bad_node_secret",
            f"the file holds {len(secret)} bytes, not the {_NODE_SECRET_BYTES} of a node's secret",
            where=str(path),
            remedy="restore it from a backup, or remove it: responses that clients hold ids of are then forgotten",
        )
    return secret


class LaneKey:
    """An Ed25519 key in a file."""

    @staticmethod
    def load_or_create(path: Path) -> Ed25519PrivateKey:
        """The key in `path`, made there (mode 0600, on disk before it is used) if there is none yet.

        Two that start at once end with the same key. Refusal `bad_key_file` if the file holds something else.
        """
        if not path.exists():
            make_folder(path.parent)
            pem = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            create_once(path, pem, mode=0o600)
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except ValueError:
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise Refusal(
                "bad_key_file",
                "the file holds no Ed25519 private key",
                where=str(path),
                remedy="restore it from a backup, or move it away and enrol a new key",
            )
        return key

    @staticmethod
    def public_bytes(key: Ed25519PrivateKey) -> bytes:
        """The 32 bytes of the public key."""
        return key.public_key().public_bytes_raw()
