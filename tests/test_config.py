"""Every mistake in a configuration is one line that names the key and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arbitrage import config
from arbitrage.errors import ConfigError

TEACHER = {"name": "a", "kind": "scripted"}
EXAMPLES = Path(__file__).parents[1] / "examples"


def test_defaults_are_enough_for_one_teacher() -> None:
    settings = config.parse({"teachers": [TEACHER]})
    assert settings.teachers[0].name == "a"
    assert settings.policy.kind == "thompson"
    assert settings.service.listen == "127.0.0.1:50051"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_examples_are_valid(example: Path) -> None:
    assert config.load(example).teachers


def teacher(**changes: Any) -> dict[str, Any]:
    return {"teachers": [{**TEACHER, **changes}]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "teachers: is required"),
        ({"teachers": []}, "teachers: tuple should have at least 1 item"),
        (teacher(max_concurency=3), "teachers[0].max_concurency: unknown key; did you mean"),
        (teacher(base_url="x"), "teachers[0].base_url: unknown key; valid are"),
        (teacher(kind="opena"), "teachers[0].kind: unknown 'opena'; did you mean 'openai'?"),
        ({"teachers": [{"name": "x"}]}, "teachers[0].kind: is required; one of openai, litellm"),
        (teacher(sampling={"temprature": 1.0}), "teachers[0].sampling.temprature: unknown key"),
        (teacher(max_concurrency="8"), "teachers[0].max_concurrency: input should be a valid int"),
        (teacher(max_concurrency=0), "teachers[0].max_concurrency: input should be greater than"),
        (teacher(languages=["deutsch"]), "teachers[0].languages: language: unknown language tag"),
        ({"teachers": [TEACHER, TEACHER]}, "teachers: two are named 'a'; names must differ"),
        (teacher() | {"polcy": {}}, "polcy: unknown key; did you mean 'policy'?"),
        (teacher() | {"policy": {"kind": "tompson"}}, "policy.kind: unknown 'tompson'; use"),
        (teacher() | {"policy": {"experts": {"de": ["b"]}}}, "policy.experts.de: no teacher is"),
        (teacher() | {"reward": {"kind": "transformers"}}, "reward.model: is required"),
        (teacher() | {"reward": {"kind": "scripted", "modle": "x"}}, "reward.modle: unknown key"),
        (teacher() | {"reward": {"device": 1}}, "reward.device: input should be a valid string"),
        (
            teacher() | {"reward": {"kind": "judg"}},
            "reward.kind: unknown 'judg'; did you mean 'judge'?",
        ),
        (
            teacher() | {"reward": {"kind": "judge", "teacher": {"name": "j", "kind": "scripte"}}},
            "reward.teacher.kind: unknown 'scripte'; did you mean 'scripted'?",
        ),
        (
            teacher() | {"reward": {"kind": "judge", "teacher": TEACHER}},
            "reward: a judge and another teacher are named 'a'; names must differ",
        ),
        (
            teacher() | {"reward": {"kind": "ensemble", "members": [{"kind": "rules"}]}},
            "reward.members: tuple should have at least 2 items",
        ),
        (
            teacher() | {"reward": {"kind": "ensemble", "members": [{"kind": "rulse"}] * 2}},
            "reward.members[0].kind: unknown 'rulse'; did you mean 'rules'?",
        ),
        (
            teacher() | {"reward": {"kind": "ensemble", "members": [{"gates": []}] * 2}},
            "reward.members[0].kind: is required; one of embedded, transformers",
        ),
        (
            teacher()
            | {"reward": {"kind": "ensemble", "members": [{"kind": "rules", "gates": []}] * 2}},
            "reward.members[0].gates: the ensemble has the gates; set reward.gates",
        ),
        (
            teacher()
            | {"reward": {"kind": "ensemble", "members": [{"kind": "rules"}] * 2, "weights": [1]}},
            "reward.weights: 1 for 2 members; give each member one",
        ),
        (
            teacher() | {"reward": {"calibration": {"per_langage": False}}},
            "reward.calibration.per_langage: unknown key; did you mean 'per_language'?",
        ),
        (teacher() | {"policy": {"audit_rate": 2.0}}, "policy.audit_rate: input should be less"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_key(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(data, source="my.toml")
    assert str(caught.value).startswith(f"my.toml: {message}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_bad_toml_are_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[service\n")
    for path, reason in [
        (tmp_path / "none.toml", "No such file"),
        (tmp_path, "Is a directory"),
        (bad, "is not TOML: Expected ']'"),
    ]:
        with pytest.raises(ConfigError, match=reason) as caught:
            config.load(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_only_trainable_needs_a_teacher_that_is() -> None:
    sections = {"sink": {"only_trainable": True}}
    with pytest.raises(ConfigError, match="no teacher says trainable = true"):
        config.parse(teacher() | sections)
    assert config.parse(teacher(trainable=True) | sections).sink.only_trainable


def test_every_limit_of_a_teacher_can_be_set() -> None:
    limits = {
        "requests_per_minute": 60,
        "tokens_per_minute": 10_000,
        "when_limited": "wait",
        "max_attempts": 2,
        "hedge_percentile": 0.95,
        "trainable": False,
    }
    (parsed,) = config.parse(teacher(**limits)).teachers
    assert {name: getattr(parsed, name) for name in limits} == limits
