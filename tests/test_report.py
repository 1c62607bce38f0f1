"""`arbitrage report`: the figures of a run, and the page that shows them, in a real browser."""

from __future__ import annotations

import asyncio
import base64
import gzip
import html
import json
import math
import random
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sink
from arbitrage import config
from arbitrage.errors import SinkError
from arbitrage.types import (
    Candidate,
    Completion,
    Decision,
    Estimate,
    Failure,
    Message,
    Prompt,
    Sample,
    Score,
    Verdict,
)
from sink import report
from sink.report.extracts import pack
from sink.report.figures import Figures
from sink.report.moments import Moments, Reservoir
from sink.report.page import render
from sink.report.picks import CLOSEST, DISAGREEMENT, LONG_SHOT, NOBODY, WIDEST, Picks
from sink.report.regret import Regret
from tests.browser import chromium, installed
from tests.samples import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.browser import Browser, Tab

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ARMS = ("ada", "bob", "eve", "kim")
FORTY = [
    *("am", "ar", "bn", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "gu"),
    *("ha", "he", "hi", "hu", "id", "is", "it", "ja", "ka", "kk", "ko", "ml", "mr", "nl"),
    *("pa", "pl", "pt", "ru", "sw", "ta", "te", "th", "tr", "uk", "vi", "zh"),
]
TEXTS = {
    "de": "Lima liegt in Peru.",
    "ar": "تقع ليما في بيرو (Peru) على ساحل المحيط الهادئ.",
    "he": "לימה נמצאת בפרו.\n\n```python\nprint('Lima')\n```\n\nזה הכול.",
    "ja": "リマはペルーにあります。",
    "zh": "利马在秘鲁。",
}


def made(
    number: int,
    *,
    language: str = "de",
    arms: Sequence[str] = ARMS[:2],
    text: str | None = None,
    seed: int = 0,
) -> Sample:
    """Answers by these arms, of which some fail or are stopped."""
    rng = random.Random(seed * 100_000 + number)  # noqa: S311 - not for secrets
    answer = text or TEXTS.get(language, f"An answer in {language}.")
    candidates = []
    for arm in arms:
        fate = rng.random()
        seconds, usd = rng.uniform(0.1, 3.0), rng.uniform(0.0, 0.01)
        done = Completion(answer, prompt_tokens=7, completion_tokens=3)
        if fate < 0.1:
            failure = Failure("timeout", "no answer in 60 s")
            candidates.append(Candidate(arm, failure=failure, latency_seconds=60.0))
        elif fate < 0.25:
            gate = Verdict(rng.choice(["refusal", "wrong_language"]), "is English")
            candidates.append(
                Candidate(arm, done, gates=(gate,), latency_seconds=seconds, cost_usd=usd)
            )
        else:
            score = Score(rng.gauss(0.0, 1.0), {"embedded": 1.0})
            candidates.append(
                Candidate(arm, done, score=score, latency_seconds=seconds, cost_usd=usd)
            )
    return Sample.of(
        Prompt.of(f"Frage {number}: Wo liegt Lima?", prompt_id=f"p{number}", language=language),
        Decision("thompson", number, tuple(arms), (0.4,) * len(arms), (0,) * len(arms)),
        candidates,
        job="test",
        created_at=NOON + timedelta(seconds=number),
    )


async def store(out: Path, samples: Sequence[Sample]) -> Path:
    opened = await sink.open(config.Sink(path=out))
    for one in samples:
        await opened.write(one)
    await opened.close()
    return out


def figures_of(samples: Sequence[Sample]) -> Figures:
    figures = Figures(len(samples))
    for one in samples:
        figures.add(one)
    return figures


def picks_of(samples: Sequence[Sample]) -> list[tuple[Sample, list[str]]]:
    picks = Picks()
    for one in samples:
        picks.add(one)
    return picks.chosen()


def embedded(page: str) -> list[Any]:
    """The samples in a page, as its script finds them."""
    plain = re.search(r'id="plain">(.*?)</script>', page, re.DOTALL)
    packed = re.search(r'id="packed">(.*?)</script>', page, re.DOTALL)
    assert plain
    assert packed
    more = gzip.decompress(base64.b64decode(packed[1])) if packed[1] else b"[]"
    return [*json.loads(plain[1]), *json.loads(more)]


# Figures


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.integers(0, 100))
def test_moments_are_those_of_the_whole_however_it_is_cut(values: list[float], cut: int) -> None:
    first, second = Moments(), Moments()
    for number, value in enumerate(values):
        (first if number < cut else second).add(value)
    both = first + second
    assert both.count == len(values)
    assert both.mean == pytest.approx(np.mean(values), abs=1e-3)
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    assert both.deviation == pytest.approx(deviation, rel=1e-6, abs=1e-3)


def test_what_is_no_number_does_not_spoil_a_mean() -> None:
    moments = Moments()
    for value in (1.0, math.nan, math.inf, 3.0):
        moments.add(value)
    assert (moments.count, moments.mean) == (2, 2.0)


def test_an_even_draw_stays_even_when_it_shrinks() -> None:
    counts = np.zeros(200)
    for seed in range(400):
        drawn: Reservoir[int] = Reservoir(40, random.Random(seed))  # noqa: S311
        for number in range(100):
            drawn.offer(number)
        drawn.shrink(20)
        for number in range(100, 200):
            drawn.offer(number)
        assert len(set(drawn.kept)) == 20
        counts[drawn.kept] += 1
    # 40 on average of each hundred, 2,000 draws each: four standard deviations are about 5%
    assert counts[:100].mean() == pytest.approx(40.0, rel=0.06)
    assert counts[100:].mean() == pytest.approx(40.0, rel=0.06)


def test_figures_are_what_counting_by_hand_gives() -> None:
    samples = [
        made(n, language=("de", "ar", "ja")[n % 3], arms=ARMS[: 2 + n % 2]) for n in range(150)
    ]
    figures = figures_of(samples)
    for language in (None, "de", "ar", "ja"):
        own = [s for s in samples if language in {None, s.prompt.language}]
        group = figures.by_language[language] if language else figures.everything
        candidates = [c for s in own for c in s.candidates]
        winners = [s.winner for s in own if s.winner]
        assert group.samples == len(own)
        assert group.unanswered == len(own) - len(winners)
        assert group.calls == sum(len(s.decision.arms) for s in own)
        assert group.cost_usd == pytest.approx(sum(c.cost_usd for c in candidates))
        assert group.rewards.mean == pytest.approx(np.mean([w.reward or 0.0 for w in winners]))
        assert (group.first, group.last) == (own[0].created_at, own[-1].created_at)
        for arm in ARMS[:3]:
            part = group.parts[arm]
            mine = [c for c in candidates if c.teacher == arm]
            rewards = [c.reward for c in mine if c.reward is not None]
            assert part.asked == len(mine)
            assert part.won == sum(w.teacher == arm for w in winners)
            assert part.stops["refusal"] == sum(
                verdict.gate == "refusal" for c in mine for verdict in c.gates
            )
            assert part.failures["timeout"] == sum(c.failure is not None for c in mine)
            assert part.rewards.mean == pytest.approx(np.mean(rewards))
            median = np.median([c.latency_seconds for c in mine if c.completion])
            assert part.latency(0.5) == pytest.approx(median, rel=0.2)
    assert sum(step.samples for step in figures.everything.course) == 150
    assert figures.prompts == 150
    assert figures.languages == ["ar", "de", "ja"]


def test_a_prompt_that_comes_again_is_one_prompt() -> None:
    again = replace(made(0), sample_id="f" * 32)
    assert figures_of([made(0), again, made(1)]).prompts == 2


def test_regret_is_what_the_policys_own_choice_would_have_lost() -> None:
    rng = random.Random(0)  # noqa: S311 - not for secrets
    audit, shares = 0.2, dict(zip(ARMS, (0.7, 0.2, 0.1, 0.0), strict=True))
    propensities = {arm: audit + (1 - audit) * share for arm, share in shares.items()}
    regret, lost, random_lost = Regret(1), [], []
    for number in range(4_000):
        everybody = rng.random() < audit
        arms = ARMS if everybody else rng.choices(ARMS, list(shares.values()))
        rewards = {arm: rng.gauss(0.5 * n, 1.0) for n, arm in enumerate(ARMS)}
        regret.add(
            Sample.of(
                Prompt.of(f"{number}", language="de"),
                Decision(
                    "x", 0, tuple(arms), tuple(propensities[a] for a in arms), (0,) * len(arms)
                ),
                [Candidate(a, Completion("."), score=Score(rewards[a], {})) for a in arms],
                job="test",
                created_at=NOON,
            ),
            0,
        )
        lost.append(max(rewards.values()) - sum(shares[a] * rewards[a] for a in ARMS))
        random_lost.append(max(rewards.values()) - sum(rewards.values()) / 4)
    (found,) = regret.course()
    assert 700 < found.preferred.count < 900
    assert found.preferred.mean == pytest.approx(np.mean(lost), abs=0.1)
    assert found.random.mean == pytest.approx(np.mean(random_lost), abs=0.1)


def test_no_regret_is_told_of_a_policy_that_asks_everybody_or_never_does() -> None:
    for arms, propensity in ((ARMS, 1.0), (ARMS[:2], 0.5)):
        regret = Regret(1)
        for number in range(50):
            one = made(number, arms=arms)
            decision = replace(one.decision, propensities=(propensity,) * len(arms))
            regret.add(replace(one, decision=decision), 0)
        assert regret.course()[0].preferred.count == 0


# Which samples are shown


def test_those_that_stand_out_are_shown_and_every_language_has_some() -> None:
    languages = [FORTY[n % 40] if n % 7 else "de" for n in range(6_000)]
    samples = [made(n, language=language) for n, language in enumerate(languages)]
    chosen = picks_of(samples)
    ids = {one.sample_id for one, _ in chosen}
    assert len(ids) == len(chosen) <= 2_000
    assert {one.prompt.language for one, _ in chosen} == set(languages)
    by_margin = sorted((s for s in samples if s.margin is not None), key=lambda s: s.margin or 0.0)
    why = {one.sample_id: kinds for one, kinds in chosen}
    assert all(WIDEST in why[s.sample_id] for s in by_margin[-60:])
    assert all(CLOSEST in why[s.sample_id] for s in by_margin[:60])
    assert sum(NOBODY in kinds for kinds in why.values()) >= 50
    assert [s.sample_id for s, _ in picks_of(samples)] == [s.sample_id for s, _ in chosen]


def test_a_long_shot_that_won_and_scorers_that_disagree_are_told() -> None:
    def scored(arm: str, judge: float, embedded: float) -> Candidate:
        raw = {"judge": judge, "judge.votes": 3.0, "embedded": embedded, "embedded.raw": embedded}
        return Candidate(arm, Completion("."), score=Score(judge + embedded, raw))

    def kinds(candidates: Sequence[Candidate], propensities: tuple[float, float]) -> list[str]:
        decision = Decision("x", 0, ("ada", "bob"), propensities, (0, 0))
        one = replace(made(0), decision=decision)
        one = Sample.of(one.prompt, decision, candidates, job="x", created_at=NOON)
        return picks_of([one])[0][1]

    agreed, split = scored("ada", 2.0, 2.0), scored("ada", 3.0, 0.0)
    other = scored("bob", 1.0, 1.0)
    assert LONG_SHOT in kinds([agreed, other], (0.1, 0.9))
    assert LONG_SHOT not in kinds([agreed, other], (0.5, 0.5))
    assert LONG_SHOT not in kinds([agreed, other], (0.9, 0.1))
    assert DISAGREEMENT in kinds([split, other], (0.5, 0.5))
    assert DISAGREEMENT not in kinds([agreed, other], (0.5, 0.5))


def test_a_page_does_not_grow_with_its_samples() -> None:
    noise = np.random.default_rng(0)

    def long(number: int) -> Sample:
        candidates = [
            Candidate(
                arm,
                Completion(
                    noise.integers(0x4E00, 0x9FFF, 5_000, "<u2").tobytes().decode("utf-16-le")
                ),
            )
            for arm in ARMS
        ]
        return replace(made(number), candidates=tuple(candidates), winner=None)

    extracts = pack((long(number), []) for number in range(220))
    assert 50 < extracts.shown < 220
    assert len(extracts.plain.encode()) + len(extracts.packed) < 8 << 20


def test_a_very_long_answer_is_cut_and_says_so() -> None:
    one = made(1, text="wort " * 4_000)
    (shown,) = json.loads(pack([(one, [])]).plain)
    text = next(c["text"] for c in shown["candidates"] if c["text"])
    assert text.endswith("[… 14,000 more characters in the data]")


# The file


async def test_the_same_run_gives_the_same_file_byte_for_byte(tmp_path: Path) -> None:
    await store(tmp_path / "out", [made(n, language=("de", "ar")[n % 2]) for n in range(60)])
    one = await report.write(tmp_path / "out")
    other = await report.write(tmp_path / "out", tmp_path / "other.html")
    assert one == tmp_path / "out" / "report.html"
    assert one.read_bytes() == other.read_bytes()


async def test_a_report_loads_nothing_from_anywhere(tmp_path: Path) -> None:
    await store(tmp_path / "out", [made(n) for n in range(5)])
    page = (await report.write(tmp_path / "out")).read_text("utf-8")
    assert "default-src 'none'" in html.unescape(page)
    assert not re.search(r"<(link|img|iframe|object|embed|base|video|audio)\b", page)
    assert not re.search(r'\b(src|href|action)="(?!#)', page)
    assert not re.search(r"url\(|@import|https?:", page)
    assert not re.search(r'\bstyle="|\son\w+="', page)


async def test_all_samples_of_a_small_run_are_in_the_page(tmp_path: Path) -> None:
    samples = [made(n) for n in range(40)]
    await store(tmp_path / "out", samples)
    page = (await report.write(tmp_path / "out")).read_text("utf-8")
    found = {one["id"]: one for one in embedded(page)}
    assert set(found) == {s.sample_id for s in samples}
    for one in samples:
        shown = found[one.sample_id]
        winner = None if shown["winner"] is None else shown["candidates"][shown["winner"]]
        assert (winner and winner["teacher"]) == (one.winner and one.winner.teacher)
        assert [c["text"] for c in shown["candidates"]] == [
            c.completion and c.completion.text for c in one.candidates
        ]


async def test_a_folder_that_is_no_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="holds no samples"):
        await report.write(tmp_path)
    with pytest.raises(SinkError, match="is no folder"):
        await report.write(tmp_path / "nowhere")


async def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    await store(tmp_path / "out", [made(0)])
    (tmp_path / "taken").mkdir()
    with pytest.raises(SinkError, match=r"taken: cannot be written: .*; name another file"):
        await report.write(tmp_path / "out", tmp_path / "taken")


async def test_a_report_that_is_given_up_writes_nothing(tmp_path: Path) -> None:
    await store(tmp_path / "out", [made(n) for n in range(50)])
    task = asyncio.create_task(report.write(tmp_path / "out"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "out" / "report.html").exists()


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = installed()
    if program is None:
        pytest.skip("no Chromium is installed")
    with chromium(program) as running:
        yield running


def write(path: Path, samples: Sequence[Sample], learned: Sequence[Estimate] = ()) -> str:
    """A page of these samples; its address."""
    page = render(path.stem, figures_of(samples), pack(picks_of(samples)), learned)
    path.write_text(page, "utf-8")
    return path.as_uri()


async def shown(tab: Tab) -> list[str]:
    ids: list[str] = await tab.evaluate(
        "[...document.querySelectorAll('.sample')].map((one) => one.id)"
    )
    return ids


async def found(tab: Tab) -> int:
    text: str = await tab.evaluate("document.getElementById('found').textContent")
    return int(text.split(maxsplit=1)[0].replace(",", ""))


HOSTILE = (
    "</script><script>document.title='owned'</script><!--<script>"
    "<img src=x onerror=\"document.title='owned'\"><svg onload=alert(1)>&lt;b&gt; ]]> \u2028 "
    "{{7*7}} ${7*7} $title"
)


async def test_what_teachers_say_runs_nowhere(browser: Browser, tmp_path: Path) -> None:
    stopped = Candidate(
        HOSTILE, Completion(HOSTILE, reasoning=HOSTILE), gates=(Verdict(HOSTILE, HOSTILE),)
    )
    failed = Candidate(f"b{HOSTILE}", failure=Failure(HOSTILE, HOSTILE))
    won = Candidate(f"c{HOSTILE}", Completion(HOSTILE), score=Score(1.0, {HOSTILE: 1.0}))
    candidates = (stopped, failed, won)
    messages = [Message("system", HOSTILE), Message("user", HOSTILE)]
    prompt = replace(
        Prompt.of(messages, prompt_id=HOSTILE, domain=HOSTILE), language=f'"><script>{HOSTILE}'
    )
    arms = tuple(c.teacher for c in candidates)
    decision = Decision(HOSTILE, 1, arms, (0.5,) * 3, (0, 0, 1))
    one = Sample.of(prompt, decision, candidates, job="x", created_at=NOON)
    learned = [Estimate(prompt.language, HOSTILE, 1, 1, 0.0, 1.0, 0.5, 0.0, 0.5)]
    async with browser.tab() as tab:
        await tab.go(write(tmp_path / "hostile.html", [one, made(1)], learned))
        assert await tab.evaluate("document.title") == "hostile – arbitrage report"
        assert await tab.evaluate("document.querySelectorAll('img, script, [onload]').length") == 4
        text = await tab.evaluate(f"document.getElementById('{one.sample_id}').textContent")
        assert text.count(HOSTILE) >= 8
        assert tab.complaints == []
        assert len(tab.requests) == 1


async def test_search_and_filters_narrow(browser: Browser, tmp_path: Path) -> None:
    samples = [made(n, language=list(TEXTS)[n % 5]) for n in range(100)]
    url = write(tmp_path / "run.html", samples)
    async with browser.tab() as tab:
        await tab.go(url)
        assert await found(tab) == 100
        await tab.press("/")
        await tab.press("peru frage 3")
        await tab.until("location.hash.includes('frage')")
        wanted = {
            s.sample_id
            for s in samples
            if any(c.completion and "Peru" in c.completion.text for c in s.candidates)
            and "3" in s.prompt.text
        }
        # "3" may also stand in an id or a time: those that should be found are, and few others
        await tab.until("document.getElementById('found').textContent.includes(' of 100')")
        assert len(wanted) <= await found(tab) < 45
        tests: Mapping[str, Callable[[Sample], object]] = {
            "language=ar": lambda s: s.prompt.language == "ar",
            "winner=bob": lambda s: s.winner and s.winner.teacher == "bob",
            "gate=refusal": lambda s: "refusal" in {v.gate for c in s.candidates for v in c.gates},
            "errors=1": lambda s: any(c.failure for c in s.candidates),
            "margin=1.5": lambda s: (s.margin or 0.0) >= 1.5,
            "kind=no+winner": lambda s: s.winner is None,
        }
        for filters, test in tests.items():
            await tab.evaluate(f"location.hash = 'samples?{filters}'")
            expected = sum(bool(test(s)) for s in samples)
            assert expected
            await tab.until(
                f"document.getElementById('found').textContent.startsWith('{expected} of')"
            )
        await tab.evaluate("document.querySelector('[type=reset]').click()")
        await tab.until("document.getElementById('found').textContent === '100 samples'")
        assert tab.complaints == []


async def test_an_address_opens_its_sample(browser: Browser, tmp_path: Path) -> None:
    samples = [made(n) for n in range(70)]
    url = write(tmp_path / "run.html", samples)
    async with browser.tab() as tab:
        await tab.go(url)
        first = await shown(tab)
        far = next(s.sample_id for s in samples if s.sample_id not in first)
        await tab.evaluate("location.hash = 'samples?errors=1'")
        await tab.evaluate(f"location.hash = '{far}'")
        await tab.until(f"document.activeElement.id === '{far}'")
        top = await tab.evaluate("document.activeElement.getBoundingClientRect().top")
        assert 0 <= top < 450
        await tab.evaluate(f"location.hash = '{'0' * 32}'")
        await tab.until("document.querySelector('.note') !== null")
        assert tab.complaints == []


async def test_samples_are_walked_through_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    text = "\n".join(f"Zeile {n}" for n in range(60))
    url = write(tmp_path / "run.html", [made(n, text=text) for n in range(45)])
    async with browser.tab() as tab:
        await tab.go(url)
        ids = await shown(tab)
        await tab.press("jj")
        assert await tab.evaluate("document.activeElement.id") == ids[1]
        await tab.press("k")
        assert await tab.evaluate("document.activeElement.id") == ids[0]
        folded = f"document.getElementById('{ids[0]}').querySelectorAll('.fold').length"
        assert await tab.evaluate(folded) > 0
        await tab.press("o")
        assert await tab.evaluate(folded) == 0
        await tab.press("n")
        following = await shown(tab)
        assert not set(ids) & set(following)
        assert await tab.evaluate("document.activeElement.id") == following[0]


async def test_texts_keep_their_direction_their_lines_and_their_code(
    browser: Browser, tmp_path: Path
) -> None:
    samples = [made(1, language=language) for language in TEXTS]
    async with browser.tab() as tab:
        await tab.go(write(tmp_path / "run.html", samples))
        of = "getComputedStyle(document.querySelector('.answer .prose:lang({})'))"
        for language in TEXTS:
            direction = await tab.evaluate(f"{of.format(language)}.direction")
            assert direction == ("rtl" if language in {"ar", "he"} else "ltr")
            assert await tab.evaluate(f"{of.format(language)}.unicodeBidi") == "plaintext"
            assert await tab.evaluate(f"{of.format(language)}.whiteSpaceCollapse") == "preserve"
        assert await tab.evaluate("document.querySelector('pre').textContent") == "print('Lima')"
        assert (
            await tab.evaluate("getComputedStyle(document.querySelector('pre')).direction") == "ltr"
        )


async def test_many_samples_are_unpacked_and_a_browser_that_cannot_shows_the_first(
    browser: Browser, tmp_path: Path
) -> None:
    samples = [made(n, text="Lima liegt in Peru. " * 80) for n in range(300)]
    url = write(tmp_path / "run.html", samples)
    async with browser.tab() as tab:
        await tab.go(url)
        assert await found(tab) == 300
        assert tab.complaints == []
    async with browser.tab() as tab:
        await tab.go(url, before="delete globalThis.DecompressionStream")
        assert 20 < await found(tab) < 300
        note = await tab.evaluate("document.querySelector('.note').textContent")
        assert "of 300 are shown" in note
        assert tab.complaints == []


@pytest.mark.parametrize("width", [1280, 390])
async def test_forty_languages_and_twelve_teachers_fit(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    arms = [f"a-teacher-of-long-name-{n}" for n in range(12)]
    samples = [
        made(n, language=FORTY[n % 40], arms=[arms[(n + k) % 12] for k in range(1 + n % 4)])
        for n in range(800)
    ]
    learned = [Estimate(tag, arms[0], 9, 1, 0.5, 0.1, 0.3) for tag in FORTY]
    path = tmp_path / "run.html"
    async with browser.tab(width=width) as tab:
        await tab.go(write(path, samples, learned))
        assert path.stat().st_size < 4 << 20
        room = await tab.evaluate("document.documentElement.scrollWidth")
        assert room == width
        assert await tab.evaluate("document.querySelectorAll('.v0 .heat tbody tr').length") == 40
        assert await tab.evaluate("document.querySelectorAll('.views .choice').length") == 4
        assert tab.complaints == []


@pytest.mark.parametrize("count", [0, 1])
async def test_a_run_of_no_sample_or_of_one_has_a_page(
    browser: Browser, tmp_path: Path, count: int
) -> None:
    out = await store(tmp_path / "out", [sample(n) for n in range(count)])
    page = await report.write(out)
    async with browser.tab() as tab:
        await tab.go(page.as_uri())
        told = await tab.evaluate("document.querySelector('header').textContent")
        assert ("1 prompt in 1 language" if count else "there are no samples yet") in told
        assert len(await shown(tab)) == count
        assert "NaN" not in await tab.evaluate("document.body.textContent")
        assert tab.complaints == []


async def test_a_run_that_nobody_won_has_a_page(browser: Browser, tmp_path: Path) -> None:
    out = await store(tmp_path / "out", [sample(n, won=False) for n in range(3)])
    page = await report.write(out)
    async with browser.tab() as tab:
        await tab.go(page.as_uri())
        assert "Nothing to compare" in await tab.evaluate("document.body.textContent")
        assert len(await shown(tab)) == 3
        assert tab.complaints == []


CONTRASTS = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const bytes = (colour, under) => {
    canvas.fillStyle = under || "#fff";
    canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "#fff";
  };
  const poor = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || one.matches("script, title, option, .key")) continue;
    const style = getComputedStyle(one);
    if (!one.getClientRects().length) continue;
    const ink = one.ownerSVGElement ? style.fill : style.color;
    const paper = behind(one);
    const [a, b] = [light(bytes(ink, paper)), light(bytes(paper))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) poor[`${ink} on ${paper}`] = [contrast, one.outerHTML.slice(0, 90)];
  }
  return poor;
})()"""


@pytest.mark.parametrize("dark", [False, True])
async def test_every_text_stands_out_as_wcag_aa_asks(
    browser: Browser, tmp_path: Path, dark: bool
) -> None:
    samples = [made(n, language=list(TEXTS)[n % 5], arms=ARMS) for n in range(60)]
    async with browser.tab(dark=dark) as tab:
        await tab.go(write(tmp_path / "run.html", samples))
        for choice in range(3):
            await tab.evaluate(f"document.getElementById('matrix-{choice}').click()")
            assert await tab.evaluate(CONTRASTS) == {}
        # every shade of a heat map, whether these figures have it or not
        await tab.evaluate(
            "document.querySelectorAll('.v2 .heat tbody td').forEach((cell, n) => {"
            " cell.className = n % 18 < 9 ? `p${n % 9}` : `m${n % 9}`; })"
        )
        assert await tab.evaluate(CONTRASTS) == {}


async def test_figures_can_be_read_without_the_script(tmp_path: Path) -> None:
    await store(tmp_path / "out", [made(n, language=("de", "ar")[n % 2]) for n in range(30)])
    page = (await report.write(tmp_path / "out")).read_text("utf-8")
    body = page[: page.index('<script type="application/json"')]
    for text in (">ada<", "German", "Arabic", "have a winner", "wrong language", "<noscript>"):
        assert text in body
