"""The main job on real models: what `make demo` runs, over a few of its prompts."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pyarrow.dataset

import server
from arbitrage import config
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1 import arbitrage_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = Path(__file__).parents[1] / "examples"
LANGUAGES = ("en", "es", "ja", "ar")


def prompts() -> list[dict[str, str]]:
    lines = (EXAMPLES / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_demo_s_prompts_are_many_and_in_many_scripts() -> None:
    languages = {prompt["language"] for prompt in prompts()}
    assert len(prompts()) >= 96
    assert len(languages) >= 12
    assert {"en", "ru", "zh", "ar", "hi", "th", "ko"} <= languages
    assert len({prompt["id"] for prompt in prompts()}) == len(prompts())
    assert len({prompt["prompt"] for prompt in prompts()}) == len(prompts())


async def test_prompts_become_a_dataset_and_a_policy_that_learned(tmp_path: Path) -> None:
    settings = dataclasses.replace(
        config.load(EXAMPLES / "embedded.toml"),
        service=config.Service(listen="127.0.0.1:0", metrics="127.0.0.1:0"),
        sink=config.Sink(path=tmp_path / "out"),
    )
    asked = [prompt for prompt in prompts() if prompt["language"] in LANGUAGES][:12]
    async with (
        server.running(settings) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        stub: pb_grpc.ArbitrageServiceAsyncStub = pb_grpc.ArbitrageServiceStub(channel)
        samples = await asyncio.gather(*(_send(stub, prompt) for prompt in asked))
        policy = await stub.GetPolicy(pb.GetPolicyRequest())
    won = [sample for sample in samples if sample]
    assert len(won) >= 0.75 * len(asked)  # small models fail now and then
    _check(won, [teacher.name for teacher in settings.teachers])
    table = pyarrow.dataset.dataset(tmp_path / "out" / "data", format="parquet").to_table()
    assert sorted(table["prompt_id"].to_pylist()) == sorted(sample.prompt_id for sample in won)
    assert {language.language for language in policy.languages} == set(LANGUAGES)
    assert policy.version == len(asked)


async def _send(
    stub: pb_grpc.ArbitrageServiceAsyncStub, prompt: dict[str, str]
) -> pb.Sample | None:
    message = pb.Prompt(id=prompt["id"], text=prompt["prompt"], language=prompt["language"])
    request = pb.CompleteRequest(prompt=message, include_candidates=True)
    try:
        return (await stub.Complete(request)).sample
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        return None


def _check(samples: Sequence[pb.Sample], arms: Sequence[str]) -> None:
    for sample in samples:
        assert sample.winner.completion.strip()
        assert not sample.winner.gates
        assert {choice.arm for choice in sample.decision.choices} <= set(arms)
        assert all(0 < choice.propensity <= 1 for choice in sample.decision.choices)
        assert sample.winner.reward == max(
            candidate.reward for candidate in sample.candidates if candidate.HasField("reward")
        )
