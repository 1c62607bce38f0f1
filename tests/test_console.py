"""The console: its figures are those of known traffic, and a browser shows them, live."""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import aiohttp
import pytest

from arbitrage import config
from tests.browser import chromium, installed
from tests.service import Client, refused, scripted, serving, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.browser import Browser

MEAN = "<img src=x onerror=alert(1)>"  # a name that a page must show as it is
TEACHERS = (
    scripted("ada", 1.0, price_per_million=config.Price(prompt=3.0, completion=15.0)),
    scripted(MEAN, -1.0),
    scripted("dud", failure_rate=1.0, max_attempts=1),
)
GATED = config.ScriptedReward(gates=("wrong_language",))


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    policy = config.Policy(kind="best_of", budget_usd=2.0)
    async with serving(settings(tmp_path, *TEACHERS, reward=GATED, policy=policy)) as opened:
        yield opened


async def ask(client: Client) -> None:
    """Five prompts in German and one in Klingon are answered, one in Japanese is not."""
    for number in range(5):
        await client.complete(f"Was ist das, und warum? {number}", language="de")
    await client.complete("tlhIngan Hol Dajatlh'a'", language="tlh")
    await refused(client.complete("Was ist das, auf Japanisch?", language="ja"))


def root_of(client: Client) -> str:
    return urljoin(client.running.metrics_url, "/")


async def state_of(client: Client) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{root_of(client)}state") as told:
        assert told.headers["Cache-Control"] == "no-store"
        return json.loads(await told.text())


async def test_the_state_is_that_of_the_traffic(client: Client) -> None:
    await ask(client)
    state = await state_of(client)
    assert state["calls"]["answered"] == 7
    assert state["calls"]["failed"] == state["calls"]["refused"] == 0
    assert state["calls"]["latency"][-1] == [None, 7]
    assert (state["in_flight"], state["reward_queue"]) == (0, 0)
    assert (state["samples"], state["pending"]) == (7, 7)
    assert state["started"] < state["now"]
    assert math.isclose(state["budget_usd"] - state["budget_remaining_usd"], state["cost_usd"])

    ada, mean, dud = state["teachers"]
    assert (ada["name"], mean["name"], dud["name"]) == ("ada", MEAN, "dud")
    assert (ada["available"], dud["available"]) == (1, 0)
    assert (ada["calls"], ada["failed"]) == (7, 0)
    assert dud["calls"] == dud["failed"] > 0
    assert ada["latency"][-1] == [None, 7]
    assert ada["cost_usd"] == state["cost_usd"] > 0.0
    assert ada["tokens"] > 0

    german, japanese, other = state["languages"]
    tags = [one["language"] for one in (german, japanese, other)]
    assert tags == ["de", "ja", "other"]
    assert (german["prompts"], other["prompts"]) == (5, 1)
    its = german["teachers"]["ada"]
    assert (its["asked"], its["won"], its["scored"], its["lost"]) == (5, 5, 5, 0)
    assert its["gained"] > 0.0
    assert japanese["stopped"] == 2
    its = japanese["teachers"]["ada"]
    assert (its["asked"], its["won"], its["scored"]) == (1, 0, 0)


async def test_a_server_that_was_asked_nothing_has_a_state(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client:
        state = await state_of(client)
    assert state["languages"] == []
    assert state["budget_usd"] is state["budget_remaining_usd"] is None
    assert [teacher["calls"] for teacher in state["teachers"]] == [0, 0]


async def test_the_page_may_reach_nothing_but_its_server(client: Client) -> None:
    async with aiohttp.ClientSession() as session, session.get(root_of(client)) as told:
        policy = told.headers["Content-Security-Policy"]
        text = await told.text()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "://" not in text


async def test_neither_page_nor_state_tells_what_was_asked(client: Client) -> None:
    await ask(client)
    assert "Japanisch" not in json.dumps(await state_of(client))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = installed()
    if not program:
        pytest.skip("there is no Chromium here")
    with chromium(program) as started:
        yield started


def cell(table: str, row: int, column: int) -> str:
    return f"document.querySelector('#{table} tbody').rows[{row}].cells[{column}].innerText"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
async def test_a_browser_shows_it_live(
    client: Client, browser: Browser, width: int, dark: bool
) -> None:
    root = root_of(client)
    async with browser.tab(width=width, dark=dark) as tab:
        await tab.go(root)
        assert await tab.evaluate("document.querySelector('#languages tbody').innerText") == (
            "no prompt yet"
        )
        await ask(client)
        tiles = "document.querySelector('#tiles').innerText"
        await tab.until(f"{tiles}.includes('7 stored, 7 not published yet')")
        assert await tab.evaluate(cell("languages", 0, 0)) == "German"
        assert await tab.evaluate(cell("languages", 0, 1)) == "5"
        told = await tab.evaluate(cell("languages", 0, 4))
        share, wins = told.split("\n")
        assert (share, wins.split(" ·")[0]) == ("33%", "wins 100%")
        assert wins.split("· ")[1].startswith("+")
        assert await tab.evaluate(cell("languages", 2, 0)) == "other"
        assert await tab.evaluate(cell("teachers", 0, 1)) == "may be asked"
        assert await tab.evaluate(cell("teachers", 1, 0)) == MEAN
        await tab.until(f"{cell('teachers', 2, 1)} === 'away'")
        assert "1 away" in await tab.evaluate(tiles)
        assert "live, up for" in await tab.evaluate("document.querySelector('#live').innerText")
        await tab.evaluate("document.querySelector('#span [value=start]').click()")
        assert await tab.evaluate(cell("languages", 0, 1)) == "5"
        assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.complaints == []
        assert {request.partition("?")[0] for request in tab.requests} <= {
            root,
            f"{root}state",
            "data:,",
        }


async def test_a_browser_tells_of_the_last_minute_and_of_all_before(
    client: Client, browser: Browser
) -> None:
    await ask(client)
    async with browser.tab() as tab:
        await tab.go(root_of(client))
        await tab.until(f"{cell('languages', 0, 1)} === '0'")
        await client.complete("Was ist das, und warum? Nun?", language="de")
        await tab.until(f"{cell('languages', 0, 1)} === '1'")
        await tab.evaluate("document.querySelector('#span [value=start]').click()")
        assert await tab.evaluate(cell("languages", 0, 1)) == "6"


async def test_a_browser_says_when_the_server_is_gone(tmp_path: Path, browser: Browser) -> None:
    async with browser.tab() as tab:
        async with serving(settings(tmp_path)) as client:
            await tab.go(root_of(client))
        await tab.until("document.querySelector('#live').innerText.startsWith('no answer since')")
        assert await tab.evaluate("document.body.className") == "stale"


async def test_many_languages_and_teachers_are_told_in_a_moment(tmp_path: Path) -> None:
    names = [f"teacher-{number}" for number in range(8)]
    many = [scripted(name) for name in names]
    reward = config.ScriptedReward(gates=())
    async with serving(settings(tmp_path, *many, reward=reward)) as client:
        tags = ("de", "fr", "es", "it", "pt", "nl", "pl", "cs", "ru", "uk", "tr", "ja")
        await asyncio.gather(*(client.complete(f"{tag}?", language=tag) for tag in tags))
        state = await state_of(client)
    assert len(state["languages"]) == len(tags)
    assert all(list(one["teachers"]) == names for one in state["languages"])
