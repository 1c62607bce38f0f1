"""A client that knows nothing of the project: what it needs, it learns by reflection.

Nothing here may import the product; the server runs in a process of its own.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.processes import served, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator


class Generic:
    """Calls unary methods by their names; messages are keyword arguments."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self._database)

    def services(self) -> set[str]:
        return set(self._database.get_services())

    def methods(self, service: str) -> set[str]:
        return set(self._pool.FindServiceByName(service).methods_by_name)

    def call(self, service: str, method: str, /, **fields: Any) -> Any:
        found = self._pool.FindServiceByName(service).methods_by_name[method]
        request = GetMessageClass(found.input_type)(**fields)
        send: Any = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        return send(request, timeout=60)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generic]:
    config = write_config(tmp_path_factory.mktemp("reflection"))
    options = [("grpc.enable_http_proxy", 0)]
    with served(config) as server:
        with grpc.insecure_channel(server.address, options) as channel:
            yield Generic(channel)
        assert server.stop(signal.SIGTERM).code == 0


def test_the_services_are_found(client: Generic) -> None:
    found = {name for name in client.services() if not name.startswith("grpc.")}
    assert found == {"arbitrage.v1.ArbitrageService", "arbitrage.v1.JobService"}
    assert "Complete" in client.methods("arbitrage.v1.ArbitrageService")


def test_a_completion_is_got(client: Generic) -> None:
    (service,) = (name for name in client.services() if "Complete" in client.methods(name))
    answer = client.call(service, "Complete", prompt={"text": "Warum ist das so?"})
    assert answer.sample.winner.completion.startswith("Dafür gibt es")
    assert answer.sample.language == "de"
    assert answer.sample.winner.teacher == "ada"


def test_health_is_told_through_what_reflection_says_of_it(client: Generic) -> None:
    answer = client.call("grpc.health.v1.Health", "Check", service="arbitrage.v1.JobService")
    names = answer.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number
    assert names[answer.status].name == "SERVING"


def test_an_error_is_told_in_words(client: Generic) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.call("arbitrage.v1.ArbitrageService", "Complete", prompt={"text": ""})
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("prompt.text: ")
