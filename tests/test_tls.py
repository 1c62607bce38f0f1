"""TLS over real sockets, with certificates of authorities that the tests found."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc

from arbitrage import config
from arbitrage.errors import ConfigError
from service import tls
from service.tokens import Tokens, new
from tests.callers import named, naming
from tests.service import channel_to, refused, serving, settings

if TYPE_CHECKING:
    from pathlib import Path

_SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass(frozen=True, slots=True)
class Files:
    """The PEM files of a server, which the tests change under it."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"

    @property
    def clients(self) -> Path:
        return self.folder / "clients.pem"

    def issue(self, authority: trustme.CA) -> None:
        leaf = authority.issue_cert("127.0.0.1", "localhost")
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        self.key.write_bytes(leaf.private_key_pem.bytes())

    def trust(self, authority: trustme.CA) -> None:
        self.clients.write_bytes(authority.cert_pem.bytes())

    def service(self, **fields: Any) -> config.Service:
        chosen = {"tls_certificate": self.certificate, "tls_key": self.key} | fields
        return config.Service("127.0.0.1:0", "", jobs=self.folder / "jobs", **chosen)

    @property
    def mutual(self) -> config.Service:
        return self.service(tls_clients=self.clients)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def another() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    made = Files(tmp_path)
    made.issue(authority)
    made.trust(authority)
    return made


def proof(authority: trustme.CA, leaf: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    """Whom a client believes, and what it shows."""
    root = authority.cert_pem.bytes()
    if leaf is None:
        return grpc.ssl_channel_credentials(root)
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    return grpc.ssl_channel_credentials(root, leaf.private_key_pem.bytes(), chain)


async def status(address: str, proof: grpc.ChannelCredentials | None) -> Any:
    """What a new connection hears of the service's health."""
    async with channel_to(address, proof) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest())).status


async def unavailable(address: str, proof: grpc.ChannelCredentials | None) -> None:
    """There is no connection to be had."""
    assert (await refused(status(address, proof))).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_with_a_certificate_answers_those_who_believe_it_and_no_plaintext(
    files: Files, authority: trustme.CA, another: trustme.CA
) -> None:
    chosen = settings(files.folder, service=files.service())
    async with serving(chosen, proof(authority)) as client:
        assert (await client.complete()).winner.teacher == "ada"
        await unavailable(client.running.address, None)
        await unavailable(client.running.address, proof(another))


async def test_tls_older_than_1_2_is_not_spoken(files: Files) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(settings(files.folder, service=files.service())) as client:
        host, port = client.running.address.split(":")
        with (
            socket.create_connection((host, int(port))) as raw,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            context.wrap_socket(raw)


async def test_a_changed_certificate_is_what_the_next_connection_meets(
    files: Files, authority: trustme.CA, another: trustme.CA
) -> None:
    chosen = settings(files.folder, service=files.service())
    async with serving(chosen, proof(authority)) as client:
        assert await status(client.running.address, proof(authority)) == _SERVING
        await client.complete()
        files.issue(another)
        assert await status(client.running.address, proof(another)) == _SERVING
        await unavailable(client.running.address, proof(authority))
        await client.complete("Und über die Verbindung von vorher?")


async def test_a_certificate_that_is_half_changed_or_broken_leaves_the_one_before_and_a_line(
    files: Files,
    authority: trustme.CA,
    another: trustme.CA,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(settings(files.folder, service=files.service())) as client:
        address, key = client.running.address, files.key.read_bytes()
        files.issue(another)
        new_key = files.key.read_bytes()
        files.key.write_bytes(key)
        for _ in range(3):
            assert await status(address, proof(authority)) == _SERVING
        files.key.unlink()
        for _ in range(3):
            assert await status(address, proof(authority)) == _SERVING
        files.key.write_bytes(new_key)
        assert await status(address, proof(another)) == _SERVING
    half, gone = [r.message for r in caplog.records if r.name == "service.watched"]
    assert "KEY_VALUES_MISMATCH" in half
    assert "stays in force: service.tls_key" in gone
    assert str(files.key) in gone
    assert all("PRIVATE KEY" not in record.getMessage() for record in caplog.records)


async def test_mutual_tls_lets_in_who_shows_a_certificate_of_the_authority_and_nobody_else(
    files: Files, authority: trustme.CA, another: trustme.CA
) -> None:
    async with serving(
        settings(files.folder, service=files.mutual), proof(authority, authority.issue_cert("etl"))
    ) as client:
        assert (await client.complete()).winner.teacher == "ada"
        await unavailable(client.running.address, proof(authority))
        await unavailable(client.running.address, proof(authority, another.issue_cert("etl")))
        await unavailable(client.running.address, None)


async def test_a_changed_authority_of_clients_counts_from_the_next_connection(
    files: Files, authority: trustme.CA, another: trustme.CA
) -> None:
    old, new = (proof(authority, one.issue_cert("etl")) for one in (authority, another))
    async with serving(settings(files.folder, service=files.mutual), old) as client:
        assert await status(client.running.address, old) == _SERVING
        files.trust(another)
        assert await status(client.running.address, new) == _SERVING
        await unavailable(client.running.address, old)


async def test_a_certificate_names_the_caller_by_its_common_name_or_else_an_alternative_one(
    files: Files, authority: trustme.CA
) -> None:
    async with naming(proof=tls.credentials(files.mutual)) as address:
        both = authority.issue_cert("etl.example", common_name="etl")
        assert await named(address, proof(authority, both)) == "certificate etl"
        alternative = authority.issue_cert("etl.example")
        assert await named(address, proof(authority, alternative)) == "certificate etl.example"


async def test_where_nothing_is_shown_the_caller_is_the_machine_whatever_its_port(
    files: Files, authority: trustme.CA
) -> None:
    async with naming(proof=tls.credentials(files.service())) as address:
        assert await named(address, proof(authority)) == "peer ipv4:127.0.0.1"


async def test_where_a_token_is_wanted_too_the_caller_is_known_by_it(
    files: Files, authority: trustme.CA
) -> None:
    token = new(files.folder / "tokens.toml", "night", ["complete"])
    shown = proof(authority, authority.issue_cert("etl.example", common_name="etl"))
    tokens = Tokens(files.folder / "tokens.toml")
    async with naming(tokens, tls.credentials(files.mutual)) as address:
        assert await named(address, shown, token) == "token night"
        error = await refused(named(address, shown))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        with_token_alone = await refused(named(address, proof(authority), token))
        assert with_token_alone.code() is grpc.StatusCode.UNAVAILABLE


async def starts(service: config.Service, folder: Path) -> None:
    async with serving(settings(folder, service=service)):
        pass


@pytest.mark.parametrize("missing", ["certificate", "key", "clients"])
async def test_a_missing_file_is_named(files: Files, missing: str) -> None:
    gone = getattr(files, missing)
    gone.unlink()
    with pytest.raises(ConfigError, match=f"^service.tls_{missing}: {gone}: cannot be read") as one:
        await starts(files.mutual, files.folder)
    assert "\n" not in str(one.value)


@pytest.mark.parametrize("broken", ["certificate", "key", "clients"])
async def test_a_file_that_is_not_pem_is_named(files: Files, broken: str) -> None:
    file = getattr(files, broken)
    file.write_text("this is no certificate")
    with pytest.raises(ConfigError, match=f"{file}.* no PEM certificate"):
        await starts(files.mutual, files.folder)


async def test_a_key_behind_a_password_is_refused_and_nobody_is_asked_for_it(files: Files) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="without a password"):
        await starts(files.service(), files.folder)


@pytest.mark.parametrize(
    ("fields", "missing", "because"),
    [
        ({"tls_certificate": None}, "tls_certificate", "tls_key"),
        ({"tls_key": None}, "tls_key", "tls_certificate"),
        ({"tls_certificate": None, "tls_key": None, "tls_clients": "some.pem"},
         "tls_certificate", "tls_clients"),
    ],
)  # fmt: skip
async def test_tls_is_configured_whole_or_not_at_all(
    files: Files, fields: dict[str, Any], missing: str, because: str
) -> None:
    with pytest.raises(ConfigError, match=f"^service.{missing}: is required with {because}$"):
        await starts(files.service(**fields), files.folder)


@pytest.mark.parametrize(
    ("key", "advice"), [("listen", "set tls_certificate and tls_key"), ("metrics", "use 127.0.0.1")]
)
@pytest.mark.parametrize("place", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "no.such.host.invalid:0"])
async def test_plaintext_where_others_can_reach_it_is_refused(
    tmp_path: Path, key: str, advice: str, place: str
) -> None:
    places = {"listen": "127.0.0.1:0", "metrics": "127.0.0.1:0", key: place}
    with pytest.raises(ConfigError, match=advice) as caught:
        await starts(config.Service(**places), tmp_path)  # type: ignore[arg-type] # strings
    assert str(caught.value).startswith(f"service.{key}: {place} ")
    assert "plaintext = true" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_plaintext_where_others_can_reach_it_is_had_by_asking_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = config.Service("0.0.0.0:0", "0.0.0.0:0", plaintext=True)
    async with serving(settings(tmp_path, service=service)) as client:
        assert (await client.complete()).winner.teacher == "ada"
    assert "whoever reaches 0.0.0.0:0 may call; set auth_tokens" in caplog.text


async def test_with_tls_a_server_may_listen_where_others_can_reach_it(
    files: Files, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    leaf = authority.issue_cert("etl")
    service = replace(files.mutual, listen="0.0.0.0:0")
    async with serving(settings(files.folder, service=service)) as client:
        port = client.running.address.rpartition(":")[2]
        assert await status(f"127.0.0.1:{port}", proof(authority, leaf)) == _SERVING
    assert "may call" not in caplog.text


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.9.8.7", True),
        ("localhost", True),
        ("[::1]", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104 - asked about, not bound
        ("[::]", False),
        ("10.0.0.1", False),
        ("[::ffff:10.0.0.1]", False),
        ("no.such.host.invalid", False),
        ("a" * 300, False),
    ],
)
def test_what_is_this_machine_alone(host: str, alone: bool) -> None:
    assert tls.is_loopback(host) is alone
