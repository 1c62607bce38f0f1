"""What a LiteLLM teacher is opened with: checked early, priced, and without a secret in it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from arbitrage import config
from arbitrage.errors import ConfigError
from teachers import litellm_library as library
from teachers import open_pool
from teachers.litellm import LiteLLMTeacher, open_teachers
from tests.provider_server import IGNORE_ITS_WARNINGS

pytestmark = IGNORE_ITS_WARNINGS
SECRET = "s3cret-0123456789"  # noqa: S105 - of nobody


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", SECRET)


def settings(model: str = "anthropic/claude-sonnet-4-5", **more: Any) -> config.LiteLLMTeacher:
    usual = {"name": "claude", "kind": "litellm", "model": model, "api_key_env": "TEST_API_KEY"}
    return config.LiteLLMTeacher(**usual | more)


async def opened(each: config.LiteLLMTeacher) -> LiteLLMTeacher:
    (teacher,) = await open_teachers([each])
    await teacher.close()
    return teacher


async def refusal(each: config.LiteLLMTeacher) -> str:
    with pytest.raises(ConfigError, match="'claude'") as caught:
        await open_teachers([each])
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("model", ["nosuch/model", "claude", "mistral-of-my-own"])
async def test_a_model_without_a_known_provider_is_refused(model: str) -> None:
    assert "provider/model" in await refusal(settings(model))
    assert "provider/model" in await refusal(settings(model, base_url="http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("model", "sampling", "key"),
    [
        ("anthropic/claude-sonnet-4-5", config.Sampling(seed=1), "seed"),
        (
            "anthropic/claude-sonnet-4-5",
            config.Sampling(temperature=0.0, frequency_penalty=1.0),
            "frequency_penalty",
        ),
        ("openai/gpt-5", config.Sampling(temperature=0.5), "temperature"),
        ("openai/gpt-5", config.Sampling(stop=("!",)), "stop"),
        ("cohere_chat/command-r", config.Sampling(json_schema={"type": "object"}), "json_schema"),
    ],
)
async def test_a_setting_that_the_provider_does_not_take_is_refused_not_dropped(
    model: str, sampling: config.Sampling, key: str
) -> None:
    provider = model.partition("/")[0]
    assert f"sampling.{key}: {provider} does not" in await refusal(
        settings(model, sampling=sampling)
    )


@pytest.mark.parametrize(
    "model", ["anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash", "mistral/mistral-small"]
)
async def test_usual_settings_are_taken(model: str) -> None:
    sampling = config.Sampling(temperature=0.7, max_tokens=9, stop=("!",), n=3)
    sent = (await opened(settings(model, sampling=sampling)))._arguments
    assert (sent["temperature"], sent["max_tokens"], sent["stop"]) == (0.7, 9, ["!"])
    sent = (await opened(settings(model, sampling=config.Sampling(top_p=0.9))))._arguments
    assert sent["top_p"] == 0.9


@pytest.mark.parametrize(
    "name", ["model", "messages", "stream", "base_url", "timeout", "num_retries", "drop_params"]
)
async def test_an_option_that_is_decided_elsewhere_is_refused(name: str) -> None:
    assert f"options.{name}: " in await refusal(settings(options={name: 1}))


async def test_an_option_of_the_sampling_is_refused() -> None:
    assert "sampling" in await refusal(settings(options={"temperature": 0.0}))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"api_key": SECRET}, "api_key"),
        ({"aws_secret_access_key": SECRET}, "aws_secret_access_key"),
        ({"aws_session_token": SECRET}, "aws_session_token"),
        ({"azure_password": SECRET}, "azure_password"),
        ({"vertex_credentials": SECRET}, "vertex_credentials"),
        ({"extra_headers": {"Authorization": SECRET}}, "extra_headers.Authorization"),
        ({"extra_body": [{"apiKey": SECRET}]}, "extra_body[0].apiKey"),
    ],
)
async def test_an_option_that_would_hold_a_secret_is_refused(
    options: dict[str, Any], key: str
) -> None:
    assert f"options.{key}: must not hold a secret" in await refusal(settings(options=options))


async def test_other_options_are_taken() -> None:
    options = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "top_k": 3}
    sent = (await opened(settings(options=options)))._arguments
    assert options.items() <= sent.items()


async def test_a_hosted_provider_needs_the_name_of_its_keys_variable() -> None:
    said = await refusal(settings(api_key_env=None))
    assert "api_key_env = 'ANTHROPIC_API_KEY'" in said
    await opened(settings(api_key_env=None, base_url="http://127.0.0.1:1"))


@pytest.mark.parametrize("model", ["bedrock/anthropic.claude-v2", "ollama/llama3"])
async def test_a_provider_that_has_no_key_needs_none(model: str) -> None:
    assert (await opened(settings(model, api_key_env=None)))._endpoint.key is None


async def test_a_missing_key_names_teacher_and_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_API_KEY")
    assert "TEST_API_KEY" in await refusal(settings())


@pytest.mark.parametrize("base_url", ["localhost:8000", "ftp://h", f"http://me:{SECRET}@h"])
async def test_a_base_url_that_cannot_be_used_is_refused(base_url: str) -> None:
    assert "base_url" in await refusal(settings(base_url=base_url))


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("anthropic/claude-sonnet-4-5", config.Price(3.0, 15.0)),
        ("gemini/gemini-2.5-flash", config.Price(0.3, 2.5)),
        ("openai/gpt-4o", config.Price(2.5, 10.0)),
        ("openai/a-model-of-my-own", None),
        # of another provider
        ("azure/claude-sonnet-4-5", None),
    ],
)
async def test_the_price_is_that_of_the_list(model: str, price: config.Price | None) -> None:
    teacher = await opened(settings(model, base_url="http://127.0.0.1:1"))
    assert teacher.price == price


async def test_the_price_is_known_under_another_name_of_the_provider() -> None:
    model = "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert (await opened(settings(model, api_key_env=None))).price


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8"])
async def test_a_version_that_steals_credentials_is_refused_before_it_is_imported(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "load", library.load.__wrapped__)
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    monkeypatch.setattr(library, "import_module", None)
    with pytest.raises(ConfigError, match=f"litellm {version} steals"):
        await open_teachers([settings()])


async def test_without_litellm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(library, "load", library.load.__wrapped__)
    monkeypatch.setattr("importlib.metadata.version", missing)
    with pytest.raises(ConfigError, match=r"data-arbitrage\[hosted\]"):
        await open_pool([settings()])
