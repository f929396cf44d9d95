"""The signature of a manifest: Ed25519 over its canonical JSON (RFC 8785), with a key that each service makes for itself.

`manifest.sig` is JSON: `key_id`, `public_key` and `signature`, in hex. A right signature says that the manifest is as it was signed.
Whether the signer is trusted depends on its key: a writer of the repository can change a point and sign it with a new key.
"""

import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from service import bounded_io
from service.errors import StateFolderUnwritable
from service.model.manifest import Manifest

KEY_FILE = "signing.key"
MAX_KEY_BYTES = 4096
"""Bytes of the key's file. A larger file is not a key."""
MAX_EXACT = 2**53 - 1
"""The largest whole number that every reader of JSON keeps. A larger one becomes a text."""


class SignatureState(StrEnum):
    good = "good"
    """Signed by a key that is known."""
    unknown_key = "unknown_key"
    """Right, by a key that nobody named as known."""
    wrong = "wrong"
    """The manifest was changed, or the file of the signature was."""
    missing = "missing"


@dataclass(frozen=True)
class SigningKey:
    private: Ed25519PrivateKey

    @classmethod
    def of_service(cls, state_dir: Path) -> Self:
        """The key of the service with this state folder, which is made at first use. Raises StateFolderUnwritable."""
        path = state_dir / KEY_FILE
        try:
            with suppress(FileNotFoundError):
                return cls(_private(path))
            _make(path)
            return cls(_private(path))
        except (OSError, ValueError, TypeError) as error:
            reason = bounded_io.reason_of(error) if isinstance(error, OSError) else f"it is not a key for Ed25519: {error}"
            raise StateFolderUnwritable(path=str(path), reason=reason) from error

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def id(self) -> str:
        return key_id(self.public)

    @property
    def public_text(self) -> str:
        """PEM, as in the folder `keys` of a repository. openssl reads it."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def sign(self, manifest: bytes) -> str:
        """The content of `manifest.sig`."""
        signature = self.private.sign(manifest)
        return json.dumps({"key_id": self.id, "public_key": self.public.hex(), "signature": signature.hex()}, indent=2) + "\n"


def key_id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


def public_key(text: str) -> bytes:
    """The key in a file of the folder `keys`. Raises ValueError."""
    key = serialization.load_pem_public_key(text.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not a key for Ed25519")
    return key.public_bytes_raw()


def canonical(manifest: Manifest | Mapping[str, Any]) -> bytes:
    """The bytes that are stored and signed."""
    document = manifest.as_document() if isinstance(manifest, Manifest) else manifest
    return rfc8785.dumps(_exact(document))


def is_canonical(manifest: bytes) -> bool:
    try:
        return rfc8785.dumps(json.loads(manifest)) == manifest
    except (ValueError, RecursionError):
        return False


def digest(manifest: bytes) -> str:
    """SHA-256 in hex: what tells two manifests apart."""
    return hashlib.sha256(manifest).hexdigest()


def check(manifest: bytes, signature_text: str | None, known_keys: Mapping[str, bytes]) -> SignatureState:
    """`known_keys`: public keys by their id."""
    if signature_text is None:
        return SignatureState.missing
    try:
        signature = json.loads(signature_text)
        public, signed = _from_hex(signature["public_key"]), _from_hex(signature["signature"])
        Ed25519PublicKey.from_public_bytes(public).verify(signed, manifest)
        if signature["key_id"] != key_id(public):
            return SignatureState.wrong
    except (ValueError, KeyError, TypeError, InvalidSignature, RecursionError):
        return SignatureState.wrong
    # Compared are the keys: an id is short, and another key with the same one can be made.
    return SignatureState.good if public in known_keys.values() else SignatureState.unknown_key


def _from_hex(text: str) -> bytes:
    """As it is written: a bit that flips turns a small letter into a capital one. Raises ValueError."""
    content = bytes.fromhex(text)
    if content.hex() != text:
        raise ValueError("not written as this service writes it")
    return content


def signer(signature_text: str | None) -> str | None:
    """The id of the key that a signature names."""
    try:
        return str(json.loads(signature_text or "")["key_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _exact(value: Any) -> Any:
    """What canonical JSON can say: evidence may hold numbers and names that it cannot."""
    match value:
        case bool() | None:
            return value
        case float() if not math.isfinite(value):
            return None
        case float() if not value.is_integer():
            return value
        case int() | float():
            return value if -MAX_EXACT <= value <= MAX_EXACT else str(value)
        case str():
            return _text(value)
        case Mapping():
            return {_text(name): _exact(each) for name, each in value.items()}
        case Sequence() | set() | frozenset():
            return [_exact(each) for each in value]
        case _:
            return str(value)


def _text(text: str) -> str:
    """With escapes for the bytes of a name that is not UTF-8, and for halves of characters, as JSON of another program may hold."""
    try:
        return bounded_io.printable(text)
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()


def _private(path: Path) -> Ed25519PrivateKey:
    with path.open("rb") as file:
        key = serialization.load_pem_private_key(file.read(MAX_KEY_BYTES), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("another kind of key")
    return key


def _make(path: Path) -> None:
    """Write a new key, if no other process was faster. It appears complete, and never with other rights than 0600."""
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    text = Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, form, encryption)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
