from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING

import pytest
import rules as benchmark

from arbitrage import config
from arbitrage.errors import RewardError
from arbitrage.types import Candidate, Completion, Prompt, Score
from reward import open_reward
from reward.rules import RulesReward, is_answer
from reward.rules.checking import CheckingProcess
from reward.rules.checks import compiles, fits_schema, matches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
CATASTROPHIC = ("(a+)+$", "a" * 40 + "!")


@pytest.fixture
async def rules() -> AsyncIterator[RulesReward]:
    reward = await open_reward(config.RulesReward())
    assert isinstance(reward, RulesReward)
    yield reward
    await reward.close()


def prompt(language: str = "en", **metadata: str) -> Prompt:
    return Prompt.of("?", prompt_id="p-1", language=language, metadata=metadata)


def answers(*texts: str) -> list[Candidate]:
    return [Candidate(str(number), Completion(text)) for number, text in enumerate(texts)]


def raws(scores: Sequence[Score | None]) -> list[dict[str, float] | None]:
    return [dict(score.raw) if score else None for score in scores]


async def test_a_prompt_with_nothing_to_check_leaves_no_opinion(rules: RulesReward) -> None:
    assert await rules.score(prompt(), answers("18", "")) == [None, None]
    assert await rules.score(prompt(answer="", pattern=" "), answers("18")) == [None]
    assert await rules.score(prompt(answer="18"), [Candidate("failed")]) == [None]
    assert not await rules.score(prompt(answer="18"), [])


async def test_the_score_is_the_share_of_the_checks_that_are_passed(rules: RulesReward) -> None:
    asked = prompt(answer="18", pattern=r"(?m)^So ", json_schema="{}", code="python")
    (score,) = await rules.score(asked, answers("So it is 18."))
    assert score == Score(0.5, {"answer": 1.0, "pattern": 1.0, "json_schema": 0.0, "code": 0.0})


async def test_scores_come_in_the_order_of_the_candidates(rules: RulesReward) -> None:
    scores = await rules.score(prompt(answer="18"), answers("18", "19", "x", "18 eggs"))
    assert [score.reward if score else None for score in scores] == [1.0, 0.0, 0.0, 1.0]


async def test_the_settings_name_the_keys_of_the_metadata() -> None:
    reward = await open_reward(config.RulesReward(answer="gold", pattern="answer"))
    scores = await reward.score(prompt(gold="18", answer="eggs"), answers("18 apples"))
    assert raws(scores) == [{"answer": 1.0, "pattern": 0.0}]
    await reward.close()


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"pattern": "("}, "is not a regular expression"),
        ({"json_schema": "{"}, "is not JSON"),
        ({"json_schema": '{"type": "nonsense"}'}, "is not a JSON schema"),
        ({"json_schema": "[1]"}, "is not a JSON schema"),
        ({"json_schema": '{"$ref": "http://127.0.0.1:9/x.json"}'}, "cannot be used"),
        ({"json_schema": '{"$ref": "#/nowhere"}'}, "cannot be used"),
        ({"json_schema": '{"properties": {"n": {"pattern": "("}}}'}, "is not a JSON schema"),
        ({"code": "cobol"}, "cannot be compiled here: 'cobol'"),
    ],
)
async def test_a_wrong_rule_leaves_no_opinion_and_one_line_that_names_the_prompt(
    rules: RulesReward,
    metadata: dict[str, str],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        scores = await rules.score(prompt(**metadata), answers('{"n": "1"}', '{"n": "2"}'))
    assert scores == [None, None]
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith(f"prompt 'p-1': metadata.{next(iter(metadata))}: {reason}")
    assert "\n" not in line


async def test_a_wrong_rule_does_not_disturb_the_others(rules: RulesReward) -> None:
    scores = await rules.score(prompt(answer="18", pattern="("), answers("18", "19"))
    assert raws(scores) == [{"answer": 1.0}, {"answer": 0.0}]


async def test_a_pattern_that_takes_forever_is_given_up_for_that_answer_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pattern, text = CATASTROPHIC
    reward = RulesReward(config.RulesReward(), seconds=1)
    with caplog.at_level(logging.WARNING):
        scores = await reward.score(prompt(pattern=pattern), answers("b", text, "aaa"))
    assert raws(scores) == [{"pattern": 0.0}, None, {"pattern": 1.0}]
    assert [r.getMessage() for r in caplog.records] == [
        "prompt 'p-1': metadata.pattern: took over 1 s on an answer of '1'; left unchecked"
    ]
    await reward.close()


async def test_the_loop_turns_while_a_check_runs() -> None:
    reward = RulesReward(config.RulesReward(), seconds=0.5)
    pattern, text = CATASTROPHIC
    call = asyncio.create_task(reward.score(prompt(pattern=pattern), answers(text)))
    turns = 0
    while not call.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 5
    await reward.close()


async def test_a_cancelled_call_ends_its_check_and_disturbs_no_other(rules: RulesReward) -> None:
    pattern, text = CATASTROPHIC
    stuck = asyncio.create_task(rules.score(prompt(pattern=pattern), answers(text)))
    await asyncio.sleep(0.1)
    waiting = asyncio.create_task(rules.score(prompt(pattern="b+"), answers("abc")))
    assert rules.queue_depth == 1
    await asyncio.sleep(0)
    assert rules.queue_depth == 2
    stuck.cancel()
    assert raws(await waiting) == [{"pattern": 1.0}]
    with pytest.raises(asyncio.CancelledError):
        await stuck
    assert rules.queue_depth == 0


async def test_closing_ends_the_check_under_way_and_fails_every_call() -> None:
    reward = RulesReward(config.RulesReward(), seconds=60)
    pattern, text = CATASTROPHIC
    calls = [
        asyncio.create_task(reward.score(prompt(pattern=pattern), answers(text))) for _ in range(3)
    ]
    await asyncio.sleep(0.3)
    await reward.close()
    await reward.close()
    for end in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(end, RewardError)
        assert "\n" not in str(end)


async def test_calls_side_by_side_are_all_answered(rules: RulesReward) -> None:
    calls = [rules.score(prompt(pattern=f"^{n}$"), answers("7", str(n))) for n in range(20)]
    for n, scores in enumerate(await asyncio.gather(*calls)):
        assert raws(scores) == [{"pattern": float(n == 7)}, {"pattern": 1.0}]


async def test_a_process_that_was_killed_is_started_again() -> None:
    checking = CheckingProcess()
    assert await checking.passes("pattern", "a", "a")
    assert checking._process
    checking._process.kill()
    await checking._process.wait()
    reward = RulesReward(config.RulesReward())
    reward._checking = checking
    assert raws(await reward.score(prompt(pattern="a"), answers("a", "a"))) == [
        {"pattern": 0.0},  # as if the text had brought it down
        {"pattern": 1.0},
    ]
    await reward.close()


@pytest.mark.parametrize(
    "code",
    [
        "(" * 100_000,
        "-" * 100_000 + "1",
        "x" + ".y" * 50_000,
        "x = " + "[" * 90 + "]" * 90 + "\n" + "if x:\n" * 200,
        "9" * 100_000,
        "\x00",
        "half a pair \ud83d",
        "f'" + "{" * 5000,
        "lambda: " * 20_000 + "1",
        "a" + "[0]" * 50_000,
    ],
)
async def test_hostile_code_costs_its_own_score_and_nothing_else(
    rules: RulesReward, code: str
) -> None:
    scores = await rules.score(prompt(code="python"), answers(code, "x = 1"))
    (_, good) = raws(scores)
    assert good == {"code": 1.0}


async def test_code_that_python_warns_of_compiles(rules: RulesReward) -> None:
    scores = await rules.score(prompt(code="python"), answers("print('\\d')", "x = 1 is 1"))
    assert raws(scores) == [{"code": 1.0}, {"code": 1.0}]


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 10_000, '"' + "\\u0041" * 20_000 + '"'])
async def test_hostile_json_is_survived(rules: RulesReward, value: str) -> None:
    scores = await rules.score(prompt(json_schema=SCHEMA), answers(value, '{"n": 1}'))
    assert raws(scores) == [{"json_schema": 0.0}, {"json_schema": 1.0}]


async def test_odd_texts_are_scored(rules: RulesReward) -> None:
    odd = [
        "",
        " \n",
        "x" * 20_000,
        "half a pair \ud83d",
        "\x00\u200f\u0301",
        "\u2028\r\n",
        "7" * 99,
    ]
    asked = prompt("ja", answer="18", pattern=r"\d", json_schema=SCHEMA, code="python")
    scores = await rules.score(asked, answers(*odd))
    assert all(score and set(score.raw) == {"answer", *score.raw} for score in scores)


async def test_nothing_is_started_for_a_number() -> None:
    reward = RulesReward(config.RulesReward())
    await reward.score(prompt(answer="18"), answers("18", "18 " * 5000))
    assert reward._checking._process is None
    await reward.close()


async def test_the_process_ends_with_the_reward(rules: RulesReward) -> None:
    await rules.score(prompt(pattern="a"), answers("a"))
    process = rules._checking._process
    assert process
    await rules.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ('{"n": 1}', True),
        ('{"n": "1"}', False),
        ("[]", False),
        ('Here it is:\n```json\n{"n": 1}\n```\nEnjoy!', True),
        ('```\n{"n": 1}\n```', True),
        ('```json\n{"n": "1"}\n```\nor\n```json\n{"n": 1}\n```', True),
        ('  ~~~json\n  {"n": 1}\n  ~~~', True),
        ('```json\n{"n": 1}', True),
        ("```python\nprint(1)\n```", False),
        ('{"n": NaN}', False),
        ('The answer is {"n": 1}', False),
    ],
)
def test_json_is_the_answer_or_a_fenced_block(answer: str, passes: bool) -> None:
    assert fits_schema(SCHEMA, answer) is passes


@pytest.mark.parametrize(
    ("language", "answer", "passes"),
    [
        ("python", "def f(x):\n    return x", True),
        ("python", "def f(x)\n    return x", False),
        ("Python", "So:\n```python\nx = 1\n```\nand\n```py\ny = x\n```", True),
        ("python", "So:\n```python\nx = 1\n```\nand\n```python\ny = \n```", False),
        ("python", "```bash\nls -la |\n```\n```python\nx = 1\n```", True),
        ("python", "Use this.\n```\nx = 1\n```", True),
        ("python", "1. So:\n   ```python\n   x = 1\n   ```", True),
        ("python", "return 1", False),
        ("python", "Sorry", False),
        ("python", "'I cannot do that'", False),
        ("python", "", False),
        ("python", "```python\n# nothing\n```", False),
        ("json", '{"a": [1, 2]}', True),
        ("json", "{'a': 1}", False),
        ("toml", 'a = 1\n[b]\nc = "d"', True),
        ("toml", "a = ", False),
        ("toml", "", False),
        ("yml", "a:\n  - 1\n  - 2", True),
        ("yaml", "a: [1", False),
        ("yaml", "Just words.", False),
        ("xml", "<a><b/></a>", True),
        ("xml", "<a><b></a>", False),
    ],
)
def test_code_has_to_compile(language: str, answer: str, passes: bool) -> None:
    assert compiles(language, answer) is passes


def test_a_pattern_may_be_found_anywhere() -> None:
    assert matches("b+", "abc")
    assert not matches("^b", "abc")
    assert matches(r"(?i)^ÜBER", "über")


@pytest.mark.parametrize(
    ("expected", "answer", "language", "right"),
    [
        ("Paris", "paris.", "en", True),
        ("Paris", "The answer is **Paris**, the capital.", "en", True),
        ("Paris", "(B) Paris", "en", True),
        ("Paris", "London or Paris", "en", False),
        ("Paris", "The answer is London. Paris", "en", False),
        ("Paris", "It is old.\n\nIt is **Paris**", "en", True),
        ("the Pacific Ocean", "Pacific Ocean", "en", True),
        ("Der Rhein", "Rhein!", "de", True),
        ("l'eau", "L’eau", "fr", True),
        ("東京", "答えは東京です。", "ja", True),
        ("Ｔｏｋｙｏ", "tokyo", "en", True),
        ("москва", "Ответ: Москва.", "ru", True),
        ("C++", "C", "en", False),
        ("C#", "The answer is C#.", "en", True),
        ("yes", "Yes.", "en", True),
        ("yes", "No, yes is wrong", "en", False),
        ("B", "The answer is (B).", "en", True),
        ("B", "The answer is (A). B is wrong.", "en", False),
        ("(b)", "B", "en", True),
        ("B", "答案：B", "zh", True),
        ("B", "正确选项是B。", "zh", True),
        ("B", "Respuesta: B. París", "es", True),
        ("ข", "คำตอบคือ ข. ปารีส", "th", True),
        ("ক", "উত্তর: (ক)", "bn", True),
        ("Б", "Ответ: Б) Москва", "ru", True),
        ("B", r"\boxed{\text{B}}", "en", True),
        ("B", "Option B is right.", "en", True),
        ("B", "A) x\nB) y\nC) z", "en", False),
        ("A", "A dog", "en", False),
        ("18", "XVIII", "en", False),
        ("12 Monkeys", "12 monkeys", "en", True),
        ("12 Monkeys", "12", "en", False),
    ],
)
def test_texts_and_choices_are_compared_without_their_style(
    expected: str, answer: str, language: str, right: bool
) -> None:
    assert is_answer(expected, answer, language) is right


@pytest.mark.parametrize("unit", ["a", "B) ", "answer is ", "**a**\n", "\\text{", "(", "。", " "])
def test_a_hundred_thousand_characters_of_anything_are_compared(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    for expected in ("Paris", "B", "18"):
        assert not is_answer(expected, text, "en")


@pytest.mark.skipif(not benchmark.DATA.is_dir(), reason="mgsm.jsonl.gz is not beside the checkout")
@pytest.mark.parametrize("language", sorted(benchmark.TEMPLATES))
def test_every_gold_answer_is_read_in_every_sentence(language: str) -> None:
    golds = benchmark.golds()[language]
    assert len(golds) == 250
    tally = benchmark.measure(language, golds, every_spelling=False)
    assert tally.right == 250 * len(benchmark.TEMPLATES[language])
    assert tally.wrong > 4 * tally.right
    assert not tally.missed
    assert tally.flawless


def test_every_language_has_its_sentences() -> None:
    assert len(benchmark.TEMPLATES) == 11
    assert min(map(len, benchmark.TEMPLATES.values())) >= 6
