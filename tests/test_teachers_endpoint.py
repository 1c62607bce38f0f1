"""Address, key and proxy of a hosted teacher: checked early, and never told."""

from __future__ import annotations

import logging

import pytest
from aiohttp import web

from arbitrage import config
from arbitrage.errors import ConfigError, TeacherError
from arbitrage.types import Message
from teachers.endpoint import Endpoint
from teachers.openai import OpenAITeacher
from tests.chat_server import body, sends, serve

ASK = (Message("user", "Why?"),)
SECRET = "s3cret-0123456789/abc"  # noqa: S105 - of a server that the tests run
PROXIES = ("http_proxy", "https_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", SECRET)
    for variable in PROXIES:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": f"wrong key {SECRET}; sent: Bearer {SECRET}"}},
        {"error": {"message": "Incorrect API key provided: sk-proj-ab*****wxyz."}},
        f"no user for https://me:{SECRET}@example.com",
        SECRET,
    ],
)
async def test_a_secret_never_leaks(
    status: int, said: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serve(sends(said, status=status)) as server:
        teacher = OpenAITeacher(server.settings(api_key_env="TEST_API_KEY"))
        with pytest.raises(TeacherError) as caught:
            await teacher.complete(ASK)
        await teacher.close()
    endpoint = Endpoint.of(server.settings(api_key_env="TEST_API_KEY"))
    told = [str(caught.value), *map(repr, (caught.value, teacher, endpoint)), caplog.text]
    for text in told:
        assert SECRET not in text
        assert "wxyz" not in text


@pytest.mark.parametrize("value", [None, "", "  ", "two words", "line\nbreak", "ключ"])
def test_a_missing_key_names_teacher_and_variable(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_API_KEY")
    if value is not None:
        monkeypatch.setenv("TEST_API_KEY", value)
    settings = config.OpenAITeacher(
        name="gpt", kind="openai", model="m", base_url="http://h/v1", api_key_env="TEST_API_KEY"
    )
    with pytest.raises(ConfigError, match=r"'gpt'.*TEST_API_KEY") as caught:
        Endpoint.of(settings)
    assert not value or not value.strip() or value not in str(caught.value)


@pytest.mark.parametrize(
    "base_url", ["localhost:8000", "ftp://h/v1", "http://", "http://[", f"http://me:{SECRET}@h/v1"]
)
def test_a_base_url_that_cannot_be_used_is_a_config_error(base_url: str) -> None:
    settings = config.OpenAITeacher(name="gpt", kind="openai", model="m", base_url=base_url)
    with pytest.raises(ConfigError, match=r"'gpt': base_url") as caught:
        Endpoint.of(settings)
    assert SECRET not in str(caught.value)


async def test_the_environments_proxy_is_used_but_not_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    async def proxy(request: web.BaseRequest) -> web.Response:
        seen.append((str(request.url), request.headers["Proxy-Authorization"]))
        return web.json_response(body())

    runner = web.ServerRunner(web.Server(proxy), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("http_proxy", f"http://me:pass@127.0.0.1:{runner.addresses[0][1]}")
    monkeypatch.setenv("no_proxy", "direct.invalid")
    async with serve(sends()) as server:
        for settings in (server.settings(), server.settings(base_url="http://provider.invalid/v1")):
            teacher = OpenAITeacher(settings)
            await teacher.complete(ASK)
            await teacher.close()
        assert len(server.bodies) == 1
        assert seen == [("http://provider.invalid/v1/chat/completions", "Basic bWU6cGFzcw==")]
        direct = server.settings(base_url="http://direct.invalid/v1")
        assert Endpoint.of(direct).proxy is None
    await runner.cleanup()


def test_a_proxy_that_is_not_http_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"socks5://me:{SECRET}@127.0.0.1:1")
    settings = config.OpenAITeacher(name="gpt", kind="openai", model="m", base_url="http://h/v1")
    with pytest.raises(ConfigError, match="http_proxy") as caught:
        Endpoint.of(settings)
    assert SECRET not in str(caught.value)
