"""`arbitrage token`, and the file that it keeps."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

import pytest

from arbitrage.errors import AlreadyExists, ConfigError, NotFound, Unauthenticated
from service.identity import Caller
from service.tokens import Tokens, new, read, revoke
from tests.processes import arbitrage

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def test_a_token_is_printed_once_and_its_file_holds_a_hash_of_it(file: Path) -> None:
    made = arbitrage("token", "new", "etl", "--scope", "jobs", "--scope", "complete", "-f", file)
    token = made.out.strip()
    assert (made.code, made.out.count("\n")) == (0, 1)
    assert token.startswith("arb_")
    assert len(token) == len("arb_") + 43  # 256 bits in base64
    kept = file.read_text()
    assert token not in kept + made.err
    assert hashlib.sha256(token.encode()).hexdigest() in kept
    assert Tokens(file).caller(f"Bearer {token}") == Caller(
        "token", "etl", frozenset({"complete", "jobs"})
    )
    assert file.stat().st_mode & 0o777 == 0o600
    listed = arbitrage("token", "list", "-f", file)
    assert (listed.code, listed.out) == (0, "etl\tcomplete, jobs\n")


def test_a_revoked_token_is_known_no_more(file: Path) -> None:
    first, second = new(file, "first", ["complete"]), new(file, "second", ["admin"])
    done = arbitrage("token", "revoke", "first", "-f", file)
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert list(read(file)) == ["second"]
    tokens = Tokens(file)
    assert tokens.caller(f"bearer {second}").name == "second"
    with pytest.raises(Unauthenticated, match="was revoked"):
        tokens.caller(f"Bearer {first}")


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("new", "etl", "--scope", "complete"), 1, "'etl' is there; revoke it first"),
        (("revoke", "nobody"), 1, "no token is named 'nobody'"),
        (("new", "a b", "--scope", "complete"), 2, "'a b' is not 1 to 63 of"),
        (("new", "a.b", "--scope", "complete"), 2, "'a.b' is not 1 to 63 of"),
        (("new", "other", "--scope", "root"), 2, "invalid choice: 'root'"),
        (("new", "other"), 2, "--scope"),
    ],
)
def test_mistakes_are_told_in_a_line(
    file: Path, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    new(file, "etl", ["jobs"])
    before = file.read_text()
    ended = arbitrage("token", *arguments, "-f", file)
    assert ended.code == code
    assert complaint in ended.complaint
    assert file.read_text() == before


@pytest.mark.parametrize("action", [("list",), ("revoke", "etl")])
def test_a_missing_file_is_made_by_new_alone(file: Path, action: tuple[str, ...]) -> None:
    ended = arbitrage("token", *action, "-f", file)
    assert ended.code == 2
    assert f"{file}: no such file; make a token: arbitrage token new" in ended.complaint
    assert not file.exists()


@pytest.mark.parametrize(
    "text",
    [
        "etl = 1",
        '[etl]\nscopes = ["complete"]',
        '[etl]\nscopes = []\nsha256 = "HASH"',
        '[etl]\nscopes = "admin"\nsha256 = "HASH"',
        '[etl]\nscopes = ["complete", "root"]\nsha256 = "HASH"',
        '[etl]\nscopes = ["complete", 1]\nsha256 = "HASH"',
        '[etl]\nscopes = ["complete"]\nsha256 = "arb_in_the_clear"',
        '[etl]\nscopes = ["complete"]\nsha256 = "HASH"\nuntil = 2027-01-01',
        '[etl]\nscopes = ["complete"]\nsha256 = "HASH"\n[etl]\n',
        "etl",
    ],
)
def test_what_is_no_file_of_tokens_is_left_alone_and_not_quoted(file: Path, text: str) -> None:
    file.write_text(text.replace("HASH", "0" * 64))
    before = file.read_bytes()
    for refused in (lambda: read(file), lambda: new(file, "b", ["jobs"]), lambda: Tokens(file)):
        with pytest.raises(ConfigError, match=f"^{file}: ") as caught:
            refused()
        assert "arb_in_the_clear" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


def test_whose_the_file_is_and_who_may_read_it_stays_as_it_is(file: Path) -> None:
    new(file, "one", ["complete"])
    file.chmod(0o640)
    link = file.with_name("link.toml")
    link.symlink_to(file)
    new(link, "two", ["jobs"])
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(read(file)) == ["one", "two"]
    assert sorted(path.name for path in file.parent.iterdir()) == ["link.toml", "tokens.toml"]


def test_tokens_that_are_made_at_once_are_all_kept(file: Path) -> None:
    names = [f"n{number}" for number in range(8)]
    threads = [threading.Thread(target=new, args=(file, name, ["complete"])) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read(file)) == names


def test_names_are_taken_once_and_revoked_once(file: Path) -> None:
    new(file, "etl", ["complete"])
    with pytest.raises(AlreadyExists):
        new(file, "etl", ["jobs"])
    revoke(file, "etl")
    with pytest.raises(NotFound):
        revoke(file, "etl")
    assert not read(file)
    with pytest.raises(Unauthenticated):
        Tokens(file).caller("Bearer ")
