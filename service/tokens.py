"""Tokens that callers show: made once, kept as hashes in a file, and revoked by name.

A token is 256 bits from the system's random source. Nobody can try so many, so that one round of
SHA-256 keeps it as well as the slow hashes do that passwords need, and every RPC can afford it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import tomllib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from arbitrage.disk import sync_folder
from arbitrage.errors import AlreadyExists, ConfigError, NotFound, Unauthenticated
from service.identity import SCOPES, Caller, Scope
from service.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
"""What a token may be called."""
_PREFIX = "arb_"  # what scanners for leaked secrets, and people, know it by
_BYTES = 32
_HASH = re.compile(r"[0-9a-f]{64}")
_HEADER = "# Tokens of a service, as hashes; written by `arbitrage token new` and `revoke`.\n"


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token.

    Attributes:
        scopes: what it lets its bearer do.
        sha256: its hash, in hexadecimal digits.
    """

    scopes: frozenset[Scope]
    sha256: str


class Tokens:
    """The tokens of a file, as it is now.

    Args:
        path: the file.

    Raises:
        ConfigError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._known = Watched([path], partial(read, path))

    def caller(self, authorization: str | bytes | None) -> Caller:
        """Who shows a token.

        Args:
            authorization: as in HTTP, `Bearer TOKEN`; None where nothing was sent.

        Raises:
            Unauthenticated: it is no token, or not one of the file's.
        """
        if authorization is None:
            raise Unauthenticated("no token; send it as metadata, 'authorization: Bearer TOKEN'")
        if isinstance(authorization, str):
            authorization = authorization.encode("utf-8", "surrogateescape")
        scheme, _, secret = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthenticated("authorization: is not 'Bearer TOKEN'")
        digest = hashlib.sha256(secret.strip()).hexdigest()
        found = None
        # all of them are compared, so that time tells nothing
        for name, token in self._known.latest().items():
            if hmac.compare_digest(digest, token.sha256):
                found = Caller("token", name, token.scopes)
        if found is None:
            raise Unauthenticated("the token is not known here, or was revoked; ask the operator")
        return found


def read(path: Path) -> Mapping[str, Token]:
    """The tokens of a file, by name.

    Raises:
        ConfigError: it is missing, or holds something else.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        advice = f"arbitrage token new NAME --scope complete -f {path}"
        raise ConfigError(f"{path}: no such file; make a token: {advice}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    return {name: _token(entry, f"{path}: {name}") for name, entry in data.items()}


def new(path: Path, name: str, scopes: Collection[Scope]) -> str:
    """Makes a token, and adds its hash to a file, which is made where it is missing.

    Returns:
        The token, which can never be told again.

    Raises:
        AlreadyExists: one has this name.
        ConfigError: the file is none of tokens.
        OSError: it cannot be written.
    """
    secret = _PREFIX + secrets.token_urlsafe(_BYTES)
    with _changing(path) as tokens:
        if name in tokens:
            raise AlreadyExists(f"{path}: {name!r} is there; revoke it first, or choose a name")
        tokens[name] = Token(frozenset(scopes), hashlib.sha256(secret.encode()).hexdigest())
    return secret


def revoke(path: Path, name: str) -> None:
    """Takes a token out of a file; services know it at once.

    Raises:
        NotFound: none has this name.
        ConfigError: the file is missing, or none of tokens.
        OSError: it cannot be written.
    """
    read(path)  # rather than make it
    with _changing(path) as tokens:
        if tokens.pop(name, None) is None:
            raise NotFound(f"{path}: no token is named {name!r}; see arbitrage token list")


def _token(entry: Any, where: str) -> Token:
    match entry:
        case {"scopes": [str(), *_] as scopes, "sha256": str(digest), **rest}:
            if not rest and set(scopes) <= set(SCOPES) and _HASH.fullmatch(digest):
                return Token(frozenset(scopes), digest)
    raise ConfigError(
        f"{where}: is not [NAME] with scopes of {', '.join(SCOPES)}, and a sha256 of 64 digits"
    )


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, Token]]:
    """A file's tokens, to be changed; others who would change it wait."""
    path = path.resolve()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        tokens = dict(read(path)) if path.exists() else {}
        yield tokens
        _write(path, tokens)
    finally:
        os.close(folder)


def _write(path: Path, tokens: Mapping[str, Token]) -> None:
    """Replaces the file at once, and durably; whose it is, and who may read it, stays as it is."""
    entries = (
        f"\n[{name}]\nscopes = [{', '.join(map(_quoted, sorted(token.scopes)))}]\n"
        f"sha256 = {_quoted(token.sha256)}\n"
        for name, token in tokens.items()
    )
    before = path.stat() if path.exists() else None
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(file, "w", encoding="utf-8") as out:
            if before:
                os.fchmod(file, before.st_mode & 0o777)
                with suppress(PermissionError):
                    os.fchown(file, before.st_uid, before.st_gid)
            out.write(_HEADER + "".join(entries))
            out.flush()
            os.fsync(file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def _quoted(text: str) -> str:
    return f'"{text}"'
