"""A policy's state as a file: read back as it was, or refused in one line."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import router
from arbitrage import config
from arbitrage.errors import SnapshotError
from arbitrage.types import Candidate, Completion, Context, Score, Verdict
from router.snapshots import snapshot
from router.snapshots.snapshot import Snapshot
from router.snapshots.state import text_of
from tests.policies import fake

if TYPE_CHECKING:
    from pathlib import Path

    from arbitrage import ports
    from arbitrage.types import Decision

DTYPES = ["bool", "int8", "int64", "uint64", "float16", "float32", "float64"]


def identical(one: Any, other: Any) -> bool:
    """Whether two states are the same to the bit; every NaN counts as any other."""
    if type(one) is not type(other):
        return False
    match one:
        case np.ndarray():
            return same_arrays(one, other)
        case dict():
            return list(one) == list(other) and all(identical(one[k], other[k]) for k in one)
        case list():
            return len(one) == len(other) and all(map(identical, one, other))
        case float():
            return bool(one.hex() == other.hex())
    return bool(one == other)


def same_arrays(one: Any, other: Any) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape) or not other.flags.writeable:
        return False
    if one.dtype.kind != "f":
        return bool(one.tobytes() == other.tobytes())
    missing = np.isnan(one)
    bits = [np.where(missing, array.dtype.type(0), array).tobytes() for array in (one, other)]
    return np.array_equal(missing, np.isnan(other)) and bits[0] == bits[1]


texts = st.text(max_size=8) | st.sampled_from(["$array", "$$", "$float", "\ud800", "de", "\u2028"])
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=20))
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, arrays),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
states = st.dictionaries(texts, values, max_size=5)


@settings(deadline=None, derandomize=True)
@given(state=states)
def test_whatever_a_state_holds_comes_back_as_it_was(state: dict[str, Any]) -> None:
    again = Snapshot.decode(Snapshot("thompson", 7, state).encode())
    assert (again.kind, again.version) == ("thompson", 7)
    assert identical(state, again.state)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_arrays_come_back_as_they_were(dtype: str) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 2, (3, 100_000)) if dtype == "bool" else rng.normal(size=(3, 100_000))
    array = array.astype(dtype)
    if dtype.startswith("float"):
        array[:, :3] = math.nan, math.inf, -0.0
    state = {"large": array, "by columns": array[:, :50].T}
    assert identical(state, dict(Snapshot.decode(Snapshot("knn", 0, state).encode()).state))


def test_the_state_of_a_generator_goes_on_where_it_was() -> None:
    rng = np.random.default_rng(3)
    rng.normal(size=11)
    state = {"rng": rng.bit_generator.state}
    other = np.random.default_rng()
    other.bit_generator.state = Snapshot.decode(Snapshot("random", 0, state).encode()).state["rng"]
    assert other.normal(size=5).tolist() == rng.normal(size=5).tolist()


def test_a_person_can_read_it_and_check_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    state = {"languages": {"de": 0, "日本語": 1}, "sums": np.array([[0.1, math.nan], [2.0, 3.5]])}
    snapshot.save(path, Snapshot("thompson", 12, state))
    text = path.read_text(encoding="utf-8")
    assert '"日本語": 1' in text
    assert "[0.1, null],\n[2.0, 3.5]" in text
    assert all(len(line) < 100 for line in text.splitlines())
    read = json.loads(text, parse_constant=pytest.fail)
    assert (read["format"], read["format_version"]) == ("data-arbitrage policy", 1)
    assert (read["kind"], read["version"]) == ("thompson", 12)
    behind = "".join(text.splitlines(keepends=True)[4:])
    assert read["sha256"] == hashlib.sha256(behind.encode()).hexdigest()


def test_no_line_is_long_however_large_the_state(tmp_path: Path) -> None:
    state = {
        "features": np.ones(1_000_000, np.float32),
        "counts": list(range(100_000)),
        "names": [f"a name {i}" for i in range(3_000)],
    }
    path = tmp_path / "policy.json"
    snapshot.save(path, Snapshot("knn", 0, state))
    assert max(map(len, path.read_text().splitlines())) < 70_000


def test_the_same_state_makes_the_same_file(tmp_path: Path) -> None:
    for name in ("policy.json", "policy.json.gz"):
        files = [tmp_path / folder / name for folder in ("a", "b")]
        for file in files:
            file.parent.mkdir(exist_ok=True)
            snapshot.save(file, Snapshot("knn", 3, {"x": np.arange(1000.0)}))
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_compressed_file_is_smaller_and_read_by_any_name(tmp_path: Path) -> None:
    taken = Snapshot("knn", 3, {"x": np.zeros(10_000)})
    plain, small = tmp_path / "p.json", tmp_path / "p.json.gz"
    for path in (plain, small):
        snapshot.save(path, taken)
    assert 10 * small.stat().st_size < plain.stat().st_size
    other = small.rename(tmp_path / "renamed.json")
    assert identical(dict(taken.state), dict(snapshot.load(other).state))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"when": object()}, "a object cannot be saved"),
        ({"x": np.ones(1, dtype=np.complex128)}, "numpy's complex128 cannot be saved"),
        ({"x": np.array([None])}, "numpy's object cannot be saved"),
        ({"x": [{1: 2}]}, "the key 1 cannot be saved"),
        ({"x": {"a"}}, "a set cannot be saved"),
    ],
)
def test_what_cannot_be_read_back_is_not_saved(
    tmp_path: Path, state: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SnapshotError, match=reason):
        snapshot.save(tmp_path / "policy.json", Snapshot("knn", 0, state))
    assert not list(tmp_path.iterdir())


def test_numpys_scalars_and_tuples_become_plain() -> None:
    state = {"n": np.int64(3), "x": np.float32(0.1), "b": np.bool_(1), "t": (1, np.float64("nan"))}
    read = Snapshot.decode(Snapshot("knn", 0, state).encode()).state
    assert identical(read, {"n": 3, "x": float(np.float32(0.1)), "b": True, "t": [1, math.nan]})


# Refusals

GOOD = Snapshot("thompson", 12, {"languages": ["de", "fr"], "sums": np.eye(3)}).encode()


def refusal(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "policy.json"
    path.write_bytes(data)
    with pytest.raises(SnapshotError) as caught:
        snapshot.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("cut", [0, 1, 30, 60, 100, 150, len(GOOD) // 2, len(GOOD) - 1])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    assert "is damaged" in (said := refusal(tmp_path, GOOD[:cut])) or "is not the snap" in said


@pytest.mark.parametrize("cut", [2, 10, 60, -9, -1])
def test_a_truncated_compressed_file_is_refused(tmp_path: Path, cut: int) -> None:
    assert "is damaged" in refusal(tmp_path, gzip.compress(GOOD)[:cut])


@settings(deadline=None, derandomize=True)
@given(place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_a_file_with_another_byte_is_refused(place: int, byte: int) -> None:
    other = bytearray(GOOD)
    other[place] = byte
    if other != GOOD:
        with pytest.raises(SnapshotError):
            Snapshot.decode(bytes(other))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"version": 12', '"version": 13', "is damaged or was edited"),
        ('"de"', '"da"', "is damaged or was edited"),
        ("1.0", "1.5", "is damaged or was edited"),
        ('"format_version": 1,', '"format_version": 2,', "is of format 2, newer than 1"),
        ('"format_version": 1,\n', '"format_version": 99,\n"new": 1,\n', "is of format 99, newer"),
        ("data-arbitrage policy", "data-arbitrage", "is not the snapshot of a policy"),
        ("\n", "\r\n", "is not the snapshot of a policy"),
    ],
)
def test_an_edited_or_newer_file_is_refused(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    edited = GOOD.decode().replace(old, new).encode()
    assert edited != GOOD
    assert reason in refusal(tmp_path, edited)


@pytest.mark.parametrize(
    "body",
    [
        "not JSON at all",
        "}\n",
        '"kind": "knn"\n}\n',
        '"kind": "knn", "version": 1, "state": {"$array": "object", "shape": [0], "values": []}}',
        '"kind": "knn", "version": 1, "state": {"$array": "int8", "shape": [3], "values": [1]}}',
        '"kind": "knn", "version": 1, "state": {"$array": "int8", "shape": 1, "base64": ["?"]}}',
        '"kind": "knn", "version": 1, "state": {"$array": "int8", "shape": [], "values": null}}',
        '"kind": "knn", "version": 1, "state": {"$float": "soon"}}',
        f'"kind": "knn", "version": 1, "state": {"[" * 100_000}',
    ],
)
def test_a_file_that_only_claims_to_be_a_snapshot_is_refused(tmp_path: Path, body: str) -> None:
    digest = hashlib.sha256(body.encode()).hexdigest()
    head = '{\n"format": "data-arbitrage policy",\n"format_version": 1,\n'
    text = f'{head}"sha256": "{digest}",\n{body}'
    assert "is not the snapshot of a policy" in refusal(tmp_path, text.encode())


def test_what_cannot_be_read_or_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"none\.json: cannot be read: No such file"):
        snapshot.load(tmp_path / "none.json")
    with pytest.raises(SnapshotError, match=r"none/p\.json: cannot be written: No such file"):
        snapshot.save(tmp_path / "none" / "p.json", Snapshot("knn", 0, {}))


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.json"
    snapshot.save(path, Snapshot("knn", 1, {}))
    before = path.read_bytes()

    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SnapshotError, match="No space left on device"):
        snapshot.save(path, Snapshot("knn", 2, {}))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["policy.json"]


# Restoring

STATE = {"experience": {"sums": [1.0]}, "own": {"weights": [2.0]}, "rng": {"seed": 3}}


def test_a_policy_of_the_same_kind_takes_over_everything() -> None:
    policy = fake("thompson")
    Snapshot("thompson", 5, {**STATE, "version": 5}).restore(policy)
    assert policy.held == {**STATE, "version": 5}


def test_a_policy_of_another_kind_takes_over_what_was_learned() -> None:
    policy = fake("knn", {"experience": {}, "own": {"index": [7.0]}, "rng": {"seed": 4}})
    Snapshot("thompson", 5, {**STATE, "version": 5}).restore(policy)
    assert policy.held == {**STATE, "own": {"index": [7.0]}, "rng": {"seed": 4}, "version": 5}


def play(policy: ports.Policy, prompts: int, seed: int) -> list[Decision | None]:
    """Prompts with features, answered by who is asked, one of them stopped now and then."""
    rng = np.random.default_rng(seed)
    decisions = []
    for number in range(prompts):
        features = rng.normal(size=512).astype(np.float32)
        context = Context(("de", "sw")[number % 2], (None, "math")[number % 3 == 0], features)
        decision = policy.select(context, ("ada", "bob", "cyd"), [])
        decisions.append(decision)
        policy.update(context, [answer(arm, rng) for arm in decision.arms] if decision else [])
    return decisions


def answer(arm: str, rng: np.random.Generator) -> Candidate:
    reward, cost = float(rng.normal()), float(rng.random()) / 100
    stopped = (Verdict("empty", "nothing"),) if rng.random() < 0.1 else ()
    score = None if stopped else Score(reward, {})
    return Candidate(arm, Completion("."), gates=stopped, score=score, cost_usd=cost)


@pytest.mark.parametrize("kind", sorted(router.KINDS))
def test_every_policy_goes_on_from_a_file_as_if_it_had_never_stopped(
    tmp_path: Path, kind: Any
) -> None:
    chosen = config.Policy(kind=kind, audit_rate=0.1, seed=2, experts={"default": ("bob", "ada")})
    policy, again = router.build(chosen), router.build(replace(chosen, seed=5))
    play(policy, 140, seed=1)
    snapshot.save(tmp_path / "policy.json", Snapshot.of(policy))
    snapshot.restore(tmp_path / "policy.json", again)
    assert Snapshot.of(again).encode() == Snapshot.of(policy).encode()
    for decision, expected in zip(play(again, 20, seed=3), play(policy, 20, seed=3), strict=True):
        assert decision
        assert expected
        # what follows from the state is added up in another order
        assert decision.propensities == pytest.approx(expected.propensities, rel=1e-9)
        assert replace(decision, propensities=expected.propensities) == expected


@pytest.fixture(scope="module")
def at_random() -> Snapshot:
    """What a random policy has learned from enough prompts to know their types."""
    policy = router.build(config.Policy(kind="random"))
    play(policy, 140, seed=1)
    return Snapshot.decode(Snapshot.of(policy).encode())


@pytest.mark.parametrize("kind", sorted(set(router.KINDS) - {"random"}))
def test_every_policy_takes_over_what_another_kind_has_learned(
    kind: Any, at_random: Snapshot
) -> None:
    policy = router.build(config.Policy(kind=kind, experts={"default": ("bob", "ada")}))
    at_random.restore(policy)
    assert (policy.kind, policy.version) == (kind, 140)
    assert text_of(policy.state()["experience"]) == text_of(at_random.state["experience"])
    assert all(decision and decision.policy == kind for decision in play(policy, 5, seed=3))


@pytest.mark.parametrize("error", [KeyError("belief"), TypeError("no"), IndexError("no")])
def test_a_state_that_no_policy_understands_is_refused(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(GOOD)
    policy = fake("thompson")
    policy.restore = Mock(side_effect=error)
    with pytest.raises(SnapshotError, match=r"policy\.json: holds no state of a policy: "):
        snapshot.restore(path, policy)
