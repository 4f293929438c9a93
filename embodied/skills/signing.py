"""Ed25519 signatures of packs, by the library ``cryptography`` (the extra ``signing``), loaded when it is needed.

A private key is a file of 64 hexadecimal digits that only its owner may read; a public key is 64 such digits. A
signature says that the holder of the key has packed exactly this; whether that is worth anything is the reader's to
say (``Writer.add_principal(name, public_key=…, trust="trusted")``).
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

DOMAIN = b"embodied skill pack\x00"  # signed with the manifest: a signature of something else is none of a pack


class SigningError(RuntimeError):
    """A pack cannot be signed or its signature not be checked; the sentence says why and what to do."""


def _ed25519() -> Any:
    try:
        return importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    except ImportError:
        raise SigningError(
            "signatures need the library cryptography; install it with: pip install 'embodied-repertoire[signing]'"
        ) from None


def new_key(path: str | Path) -> str:
    """Write a new private key to a file that does not exist yet; the public key."""
    key = _ed25519().Ed25519PrivateKey.generate()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key.private_bytes_raw().hex() + "\n")
    except FileExistsError:
        raise SigningError(f"the file {path} exists and is not replaced; name another file for the new key") from None
    return key.public_key().public_bytes_raw().hex()


def sign(path: str | Path, data: bytes) -> tuple[str, str]:
    """Sign data with the private key of a file: (public key, signature), both in hexadecimal digits."""
    try:
        seed = bytes.fromhex(Path(path).read_text(encoding="utf-8").strip())
        key = _ed25519().Ed25519PrivateKey.from_private_bytes(seed)
    except (OSError, ValueError) as error:
        raise SigningError(f"{path} is no private key ({error}); `embodied skills key FILE` makes one") from error
    return key.public_key().public_bytes_raw().hex(), key.sign(DOMAIN + data).hex()


def is_signed_by(public_key: str, signature: str, data: bytes) -> bool:
    """Whether the signature is that of the key's holder for exactly this data."""
    module = _ed25519()
    invalid = importlib.import_module("cryptography.exceptions").InvalidSignature
    try:
        key = module.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), DOMAIN + data)
    except (ValueError, invalid):
        return False
    return True
