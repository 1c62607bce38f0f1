"""A configuration as LiteLLM takes it: checked before anything is asked, and priced."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from arbitrage import config
from arbitrage.errors import ConfigError
from teachers.completions import request_fields
from teachers.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MILLION = 1_000_000
_DAY_SECONDS = 86_400.0
# without one, LiteLLM would send the key of another provider that the environment holds
_NO_KEY = "none"
_SIGN_THEMSELVES = frozenset(
    {
        "azure",
        "azure_ai",
        "azure_text",
        "bedrock",
        "bedrock_converse",
        "bedrock_mantle",
        "chatgpt",
        "github_copilot",
        "oci",
        "sagemaker",
        "sagemaker_chat",
        "sap",
        "vertex_ai",
        "vertex_ai_beta",
        "watsonx",
        "watsonx_text",
    }
)
"""Providers whose credentials are more than a key; LiteLLM reads them as these providers say."""
_AT_HOME = frozenset({"ollama", "ollama_chat"})
"""Providers that LiteLLM looks for on this machine, and that need no key."""
_OURS = frozenset(
    {
        "acompletion",
        "api_base",
        "base_url",
        "cache",
        "caching",
        "callbacks",
        "client",
        "complete_response",
        "context_window_fallback_dict",
        "custom_llm_provider",
        "drop_params",
        "additional_drop_params",
        "failure_callback",
        "fallbacks",
        "input_callback",
        "litellm_call_id",
        "litellm_logging_obj",
        "logger_fn",
        "max_retries",
        "messages",
        "mock_delay",
        "mock_response",
        "mock_timeout",
        "mock_tool_calls",
        "model",
        "model_list",
        "num_retries",
        "request_timeout",
        "retry_policy",
        "retry_strategy",
        "service_callback",
        "shared_session",
        "ssl_verify",
        "stream",
        "stream_options",
        "stream_timeout",
        "success_callback",
        "timeout",
    }
)
"""Arguments of `litellm.acompletion` that the pool, or this adapter, decides on."""
_SAMPLING = frozenset(
    {"frequency_penalty", "max_tokens", "n", "response_format", "seed", "stop", "temperature"}
    | {"top_p"}
)
_SECRET_WORDS = frozenset(
    {"apikey", "auth", "authorization", "bearer", "cookie", "credential", "credentials", "key"}
    | {"passphrase", "passwd", "password", "secret", "secrets", "token"}
)
_NO_SECRETS = frozenset({"prompt_cache_key"})
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True, slots=True)
class Request:
    """What every call of a teacher asks LiteLLM for.

    Attributes:
        endpoint: where the provider is, and with which key.
        arguments: of `litellm.acompletion`, but for the messages.
        at_once: answers that one call may bring.
        price: what LiteLLM's price list says, where it knows the model.
    """

    endpoint: Endpoint
    arguments: Mapping[str, Any]
    at_once: int
    price: config.Price | None

    @classmethod
    def of(cls, settings: config.LiteLLMTeacher, litellm: Any) -> Self:
        """Reads a configuration. It may block: some providers are asked what they know.

        Raises:
            ConfigError: the model's provider is unknown, an option is not one or holds a
                secret, a key is missing, or the provider does not take a setting.
        """
        where = f"teacher {settings.name!r}"
        _check_options(settings.options, where)
        name, provider = _model(settings, litellm, where)
        endpoint = Endpoint.of(settings, name=provider)
        _check_key(settings, provider, where)
        # the fields are those of the protocol; `model` is LiteLLM's name with the provider
        fields = request_fields(settings)
        probe = _Probe(litellm, name, provider, settings.options)
        for key in _SAMPLING & fields.keys() - {"n"}:
            if not probe.takes(key, fields[key]):
                told = "json_schema" if key == "response_format" else key
                raise ConfigError(
                    f"{where}: sampling.{told}: {provider} does not take it for {name!r}; leave "
                    "it out"
                )
        if "n" in fields and not probe.takes("n", fields["n"]):
            del fields["n"]
        arguments: dict[str, Any] = {
            **settings.options,
            **fields,
            "timeout": _DAY_SECONDS,
            "num_retries": 0,
            "max_retries": 0,
        }
        if settings.base_url:
            arguments["base_url"] = settings.base_url
        if endpoint.key or provider not in _SIGN_THEMSELVES:
            arguments["api_key"] = endpoint.key or _NO_KEY
        names = (settings.model, f"{provider}/{name}", name)
        price = _price(litellm.model_cost, names, provider)
        return cls(endpoint, arguments, fields.get("n", 1), price)


@dataclass(frozen=True, slots=True)
class _Probe:
    """Tells what LiteLLM would do with a setting, without asking the provider."""

    litellm: Any
    name: str
    provider: str
    options: Mapping[str, Any]

    def takes(self, key: str, value: object) -> bool:
        arguments = {**self.options, key: value}
        try:
            self.litellm.utils.get_optional_params(
                model=self.name, custom_llm_provider=self.provider, drop_params=False, **arguments
            )
        except self.litellm.UnsupportedParamsError:
            return False
        except Exception:  # noqa: BLE001 - LiteLLM's bugs are found when it is called
            return True
        return True


def _model(settings: config.LiteLLMTeacher, litellm: Any, where: str) -> tuple[str, str]:
    """The provider's own name of the model, and the provider."""
    try:
        name, provider, *_ = litellm.get_llm_provider(
            model=settings.model, api_base=settings.base_url
        )
    except Exception as error:  # LiteLLM raises bare ones, too
        raise ConfigError(
            f"{where}: model {settings.model!r}: LiteLLM knows no such provider; write it as "
            "'provider/model', such as 'anthropic/claude-sonnet-4-5'"
        ) from error
    return name, provider


def _check_key(settings: config.LiteLLMTeacher, provider: str, where: str) -> None:
    if settings.api_key_env or settings.base_url or provider in _SIGN_THEMSELVES | _AT_HOME:
        return
    raise ConfigError(
        f"{where}: {provider} needs a key; name its environment variable, such as "
        f"api_key_env = '{provider.upper()}_API_KEY'"
    )


def _check_options(options: Mapping[str, Any], where: str) -> None:
    for name in options:
        if name in _SAMPLING:
            raise ConfigError(f"{where}: options.{name}: set it in the teacher's sampling")
        if name in _OURS:
            raise ConfigError(f"{where}: options.{name}: is not an option here; remove it")
    _check_secrets(options, f"{where}: options")


def _check_secrets(value: object, at: str) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            if _is_secret(str(name)):
                raise ConfigError(f"{at}.{name}: must not hold a secret; use api_key_env")
            _check_secrets(inner, f"{at}.{name}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check_secrets(inner, f"{at}[{index}]")


def _is_secret(name: str) -> bool:
    """Whether a name is one of a secret.

    >>> [_is_secret(n) for n in ("aws_session_token", "apiKey", "X-API-Key", "Authorization")]
    [True, True, True, True]
    >>> [_is_secret(n) for n in ("max_completion_tokens", "budget_tokens", "aws_region_name")]
    [False, False, False]
    """
    words = {word.lower() for word in _WORD.findall(name)}
    return name not in _NO_SECRETS and not words.isdisjoint(_SECRET_WORDS)


def _price(
    prices: Mapping[str, Mapping[str, Any]], names: Iterable[str], provider: str
) -> config.Price | None:
    """The price in the list that comes with LiteLLM; of tiers and caches, the plain one."""
    for name in names:
        entry = prices.get(name, {})
        # such as bedrock and bedrock_converse, cohere_chat and cohere
        shorter, longer = sorted((provider, str(entry.get("litellm_provider"))), key=len)
        prompt, answer = (entry.get(f"{way}_cost_per_token") for way in ("input", "output"))
        if longer.startswith(shorter) and prompt is not None and answer is not None:
            return config.Price(_per_million(prompt), _per_million(answer))
    return None


def _per_million(price: float) -> float:
    """The price of a million tokens, without the dust of binary fractions.

    >>> _per_million(2.5e-07)
    0.25
    """
    return float(Decimal(str(price)) * _MILLION)
