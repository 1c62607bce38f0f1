"""Where a hosted teacher is reached, and with which secret; what may be told of it."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from arbitrage.errors import ConfigError

if TYPE_CHECKING:
    from arbitrage import config

_MESSAGE_LENGTH = 200
_READ = 4000
# what looks like a key even if it is not ours: providers quote, and half mask, what they were sent
_LIKE_A_SECRET = re.compile(
    r"(?<=://)[^/@\s]+(?=@)"
    r"|(?<=\bBearer )[^\s'\",]+"
    r"|(?<=[?&]key=)[^\s'\"&]+"
    r"|\b(?:sk|pk|gsk|hf|xai|nvapi)[-_][\w*.-]{6,}"
    r"|(?-i:\b(?:AIza[\w*-]{6,}|A[KS]IA[A-Z0-9*]{6,}))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An HTTP service of a provider.

    Attributes:
        url: its base address, without credentials; empty where a library knows it.
        key: what to send as the bearer token, if anything.
        proxy: the proxy that the environment names for it; None for loopback.
        name: what it is called where its address is not known.
    """

    url: URL
    key: str | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)
    name: str = ""

    @classmethod
    def of(cls, settings: config.OpenAITeacher | config.LiteLLMTeacher, name: str = "") -> Endpoint:
        """Reads the address and, from the environment, the key and the proxy.

        Raises:
            ConfigError: the address is not HTTP or holds credentials, the key's
                variable is not set, or the proxy is not HTTP.
        """
        where = f"teacher {settings.name!r}"
        url = URL() if settings.base_url is None else _address(settings.base_url, where)
        key = _key(settings.api_key_env, where) if settings.api_key_env else None
        return cls(url, key, proxy_for(url, where), name)

    def at(self, path: str) -> URL:
        """The address of one of its resources; a query of the base address is kept."""
        return (self.url / path).with_query(self.url.query)

    @property
    def place(self) -> str:
        """Host and port, or its name: what an error message calls it."""
        return self.url.authority or self.name

    def public(self, text: str) -> str:
        """One line of what the provider said, at most 200 characters, without secrets."""
        if self.key:
            text = text.replace(self.key, "***").replace(quote(self.key, safe=""), "***")
        text = _LIKE_A_SECRET.sub("***", text)
        # control characters, too: the line ends on a terminal and in a dataset
        text = " ".join("".join(c if c.isprintable() else " " for c in text[:_READ]).split())
        return text if len(text) <= _MESSAGE_LENGTH else f"{text[: _MESSAGE_LENGTH - 1]}…"


def _address(base_url: str, where: str) -> URL:
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError(
            f"{where}: base_url must be an address such as 'http://127.0.0.1:8000/v1'"
        )
    if url.user is not None or url.password is not None:
        raise ConfigError(f"{where}: base_url must not hold credentials; use api_key_env")
    return url


def _key(variable: str, where: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"{where}: the environment variable {variable} is not set; set it")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"{where}: the environment variable {variable} holds characters that no key has"
        )
    return key


def proxy_for(url: URL, where: str) -> str | None:
    """The environment's proxy, asked once: aiohttp's trust_env would start threads a call.

    It would also send what `~/.netrc` holds, which nobody has named in the configuration.

    Raises:
        ConfigError: the proxy is not an HTTP one; `where` leads the message.
    """
    proxy = getproxies().get(url.scheme)
    if not proxy or _is_loopback(url.host or "") or proxy_bypass(url.authority):
        return None
    try:
        scheme = URL(proxy).scheme
    except ValueError:
        scheme = ""
    if scheme not in {"http", "https"}:
        raise ConfigError(
            f"{where}: the proxy in the environment's {url.scheme}_proxy is not an HTTP one; "
            f"change it, or add {url.host} to no_proxy"
        )
    return proxy


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
