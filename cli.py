"""What each command of `arbitrage` does; `command_line.py` tells what may be typed."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from arbitrage import config, errors
from command_line import USAGE, parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    import server
    from arbitrage.display import Progress
    from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceAsyncStub

DONE, FAILED, INTERRUPTED = 0, 1, 130
_DEMO_IN_FLIGHT = 6
_out = Console(highlight=False, markup=False)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # what gRPC's core would print of a failure, our one line says
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        action = getattr(options, "action", None)
        status = asyncio.run(_COMMANDS[options.command, action](options))
    except errors.ConfigError as error:
        status = _complain(options, error, USAGE)
    except (errors.ArbitrageError, OSError) as error:
        status = _complain(options, error, FAILED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        status = _complain(options, "interrupted; what was accepted is kept", INTERRUPTED)
    sys.exit(status)


async def _serve(options: argparse.Namespace) -> int:
    import server  # noqa: PLC0415 - the engine's imports, which most commands do without

    def ready(running: server.Running) -> None:
        print(f"serving on {running.address}, metrics at {running.metrics_url}", flush=True)

    settings = config.load(options.config)
    stopped_by = await server.serve(settings, ready, lambda: config.load(options.config))
    print(f"stopped; samples are in {settings.sink.path}", flush=True)
    return INTERRUPTED if stopped_by == signal.SIGINT else DONE


async def _complete(options: argparse.Namespace) -> int:
    from arbitrage.client import connected  # noqa: PLC0415 - as above
    from arbitrage.v1 import arbitrage_pb2 as pb  # noqa: PLC0415 - as above

    text = _stdin() if options.text == "-" else options.text
    prompt = pb.Prompt(text=text, language=options.language or "")
    async with connected(options.address) as stub:
        request = pb.CompleteRequest(prompt=prompt, include_candidates=True)
        sample = (await stub.Complete(request, timeout=options.timeout)).sample
    print(sample.winner.completion)
    asked = ", ".join(_ending(candidate) for candidate in sample.candidates)
    print(f"[{sample.language}] {sample.winner.teacher} won; asked: {asked}", file=sys.stderr)
    return DONE


async def _teachers(options: argparse.Namespace) -> int:
    from arbitrage.types import Prompt  # noqa: PLC0415 - as above
    from teachers import open_pool  # noqa: PLC0415 - as above

    settings = config.load(options.config)
    if not options.check:
        for teacher in settings.teachers:
            languages = ", ".join(teacher.languages) or "all languages"
            print(f"{teacher.name}\t{teacher.kind}\t{teacher.model}\t{languages}")
        return DONE
    pool = await open_pool(settings.teachers)
    try:
        prompt = Prompt.of("What is the capital of France?", language="en")
        arms = [teacher.name for teacher in settings.teachers]
        patience = max(teacher.timeout_seconds for teacher in settings.teachers)
        deadline = asyncio.get_running_loop().time() + patience
        answers = await asyncio.gather(
            *(pool.ask(arm, prompt, tried=arms, deadline=deadline) for arm in arms)
        )
    finally:
        await pool.close()
    for c in itertools.chain(*answers):
        result = f"ok {c.completion.text[:60]!r}" if c.completion else "FAILED"
        print(f"{c.teacher}\t{c.latency_seconds:.2f} s\t{result}")
    failures = [f"{c.teacher}: {c.failure.message}" for c, *_ in answers if c.failure]
    if failures:
        raise errors.ArbitrageError("; ".join(failures))
    return DONE


async def _policy_show(options: argparse.Namespace) -> int:
    import policy_commands  # noqa: PLC0415 - as above

    _out.print(await policy_commands.show(_source(options), options.language))
    return DONE


async def _policy_snapshot(options: argparse.Namespace) -> int:
    import policy_commands  # noqa: PLC0415 - as above

    print(await policy_commands.save(_source(options), options.file))
    return DONE


async def _policy_reset(options: argparse.Namespace) -> int:
    import policy_commands  # noqa: PLC0415 - as above

    print(await policy_commands.reset(config.load(options.config)))
    return DONE


def _source(options: argparse.Namespace) -> config.Config | str:
    """What knows a policy: a configuration's folder, or a service."""
    return config.load(options.config) if options.config else str(options.address)


async def _run(options: argparse.Namespace) -> int:
    import run_command  # noqa: PLC0415 - as above

    settings = config.load(options.config)
    sink = dataclasses.replace(settings.sink, path=options.output)
    settings = dataclasses.replace(settings, sink=sink)
    if options.dry_run:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for line in run_command.dry_run(settings, options.prompts, options.limit):
            print(line)
        return DONE
    counts, interrupted = await run_command.run(
        settings,
        options.prompts,
        _out,
        run_command.Options(
            limit=options.preview or options.limit,
            preview=bool(options.preview),
            no_cache=options.no_cache,
            mixed=options.mixed,
            grace_seconds=options.grace,
        ),
    )
    print(run_command.ending(counts, options.output))
    return INTERRUPTED if interrupted else DONE


async def _estimate(options: argparse.Namespace) -> int:
    import estimate  # noqa: PLC0415 - as above
    from arbitrage import prompts  # noqa: PLC0415 - as above
    from arbitrage.engine import JOB  # noqa: PLC0415 - as above
    from arbitrage.journal import answered  # noqa: PLC0415 - as above
    from sink.layout import Layout  # noqa: PLC0415 - as above

    settings = config.load(options.config)
    done = None
    if options.output:
        sink = dataclasses.replace(settings.sink, path=options.output)
        settings = dataclasses.replace(settings, sink=sink)
        done = answered(Layout(options.output).journal, JOB)
    # long work off the loop's turn: Ctrl-C has to reach it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    read = prompts.read(options.prompts)
    policy = estimate.learned(settings)
    found = await estimate.estimate(settings, read, policy=policy, done=done)
    if options.json:
        print(json.dumps(found.plain(), ensure_ascii=False, allow_nan=False, indent=2))
    else:
        _out.print(*found.parts(), sep="\n")
    return DONE


async def _export(options: argparse.Namespace) -> int:
    import dataset_commands  # noqa: PLC0415 - as above

    filters = dataset_commands.filters(
        languages=options.language,
        min_reward=options.min_reward,
        min_margin=options.min_margin,
        balance=options.balance,
        keep=options.keep,
        rejected=options.rejected,
        dedupe=options.dedupe,
        dedupe_answers=options.dedupe_answers,
        decontaminate=tuple(options.decontaminate),
        only_trainable=options.only_trainable,
        seed=options.seed,
    )
    # long work off the loop's turn: Ctrl-C has to reach it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = shlex.join(["arbitrage", *sys.argv[1:]])
    print(
        await dataset_commands.export(
            options.runs, options.to, options.format, filters, command=command
        )
    )
    return DONE


async def _report(options: argparse.Namespace) -> int:
    import dataset_commands  # noqa: PLC0415 - as above

    print(await dataset_commands.report(options.run, options.to))
    return DONE


async def _replay(options: argparse.Namespace) -> int:
    from replay import replay, target  # noqa: PLC0415 - as above

    settings = config.load(options.config) if options.config else None
    policy = target(
        settings.policy if settings else config.Policy(),
        kind=options.policy,
        fan_out=options.fan_out,
        seed=options.seed,
    )
    # long work off the loop's turn: Ctrl-C has to reach it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    report = await replay(options.logs, policy, settings.teachers if settings else ())
    if options.json:
        print(json.dumps(report.plain(), ensure_ascii=False, allow_nan=False, indent=2))
    else:
        _out.print(*report.parts(), sep="\n")
    if report.refusal:
        raise errors.ArbitrageError(f"the log does not tell: {report.refusal}")
    return DONE


async def _reward_train(options: argparse.Namespace) -> int:
    # torch and Transformers, which training alone needs
    from reward.train import TrainSettings, train  # noqa: PLC0415

    settings = TrainSettings(
        pairs=tuple(options.pairs),
        output=options.output,
        model=options.model,
        whole=options.whole,
        epochs=options.epochs,
        learning_rate=options.lr,
        max_tokens=options.max_tokens,
        max_tokens_per_batch=options.max_tokens_per_batch,
        weigh_by_margin=options.weigh_by_margin,
        holdout=options.holdout,
        device=options.device,
        seed=options.seed,
    )
    # hours of work off the loop's turn: Ctrl-C has to reach it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    report = train(settings, lambda line: print(line, flush=True))
    print("\n".join(report.lines()))
    kind = "transformers" if settings.whole else "embedded"
    print(f'[reward]\nkind = "{kind}"\nmodel = "{settings.output}"')
    return DONE


async def _demo(options: argparse.Namespace) -> int:
    """The main job on embedded teachers: a real server, a real client, a real dataset."""
    import server  # noqa: PLC0415 - as above
    from arbitrage.client import connected  # noqa: PLC0415 - as above
    from arbitrage.display import Progress, favourites  # noqa: PLC0415 - as above
    from arbitrage.v1 import arbitrage_pb2 as pb  # noqa: PLC0415 - as above

    examples = _examples()
    lines = (examples / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    folder = _unused(options.output)
    settings = dataclasses.replace(
        config.load(examples / "embedded.toml"),
        service=config.Service(listen="127.0.0.1:0", metrics="127.0.0.1:0"),
        sink=config.Sink(path=folder),
    )
    _out.print("loading the teachers and the reward model; the first time takes a minute")
    async with server.running(settings) as running, connected(running.address) as stub:
        _out.print(f"serving on {running.address}, metrics at {running.metrics_url}")
        with Progress(_out, len(lines), len(settings.teachers)) as progress:
            await _send_all(stub, [json.loads(line) for line in lines], progress)
        policy = await stub.GetPolicy(pb.GetPolicyRequest())
    _out.print(favourites(policy))
    for reason in progress.failures:
        _out.print(f"no sample: {reason}")
    print(_HOW_TO_GO_ON.format(folder=folder, samples=progress.samples, bin=_commands()))
    return DONE if progress.samples else FAILED


_HOW_TO_GO_ON = """
{samples} samples are in {folder}/data, one folder a language; {folder}/README.md is their card.
  {bin}/python -c "import datasets as d; print(d.load_dataset('{folder}', 'de')['train'][0])"

With teachers of your own: copy examples/embedded.toml, replace a teacher by yours, such as
  [[teachers]]
  name = "mine"
  kind = "openai"                          # vLLM, SGLang, TGI, llama.cpp, most hosts
  model = "Qwen/Qwen3-8B"
  base_url = "http://127.0.0.1:8000/v1"
  api_key_env = "MY_API_KEY"               # the variable's name, if it needs a key
and run:  {bin}/arbitrage serve -c mine.toml
then:     {bin}/arbitrage complete "Wo liegt Lima?"
"""


async def _send_all(
    stub: ArbitrageServiceAsyncStub, prompts: Sequence[dict[str, Any]], progress: Progress
) -> None:
    import grpc  # noqa: PLC0415 - as above

    from arbitrage.v1 import arbitrage_pb2 as pb  # noqa: PLC0415 - as above

    free = asyncio.Semaphore(_DEMO_IN_FLIGHT)

    async def send(prompt: dict[str, Any]) -> None:
        message = pb.Prompt(
            id=prompt["id"],
            text=prompt["prompt"],
            language=prompt["language"],
            domain=prompt["domain"],
        )
        async with free:
            try:
                response = await stub.Complete(pb.CompleteRequest(prompt=message))
                progress.add(response.sample)
            except grpc.aio.AioRpcError as error:
                # nobody wins only after everyone was asked
                nobody_won = error.code() is grpc.StatusCode.FAILED_PRECONDITION
                calls = progress.teachers if nobody_won else 0
                progress.fail(f"{prompt['id']}: {error.details()}", calls=calls)

    async with asyncio.TaskGroup() as group:
        for prompt in prompts:
            group.create_task(send(prompt))


def _stdin() -> str:
    """All of standard input.

    Raises:
        InvalidPrompt: it is not UTF-8.
    """
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.InvalidPrompt("stdin", f"is not UTF-8: {error.reason}") from None


def _ending(candidate: Any) -> str:
    """How a candidate ended, in a few words."""
    if candidate.HasField("error"):
        return f"{candidate.teacher} {candidate.error.code}"
    if candidate.gates:
        return f"{candidate.teacher} stopped by {', '.join(g.gate for g in candidate.gates)}"
    return f"{candidate.teacher} {candidate.reward:+.2f}"


def _examples() -> Path:
    """The folder of examples: in a wheel beside the core, in a checkout at its root."""
    core = Path(__file__).parent / "arbitrage" / "examples"
    return core if core.is_dir() else Path(__file__).parent / "examples"


def _commands() -> Path:
    """Where this environment's commands lie, from here."""
    return Path(os.path.relpath(sys.prefix)) / "bin"


def _unused(folder: Path) -> Path:
    """The folder, or the first of `folder-2`, `folder-3`, ... that holds nothing yet."""
    candidate, number = folder, 1
    while candidate.exists() and (not candidate.is_dir() or any(candidate.iterdir())):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _complain(options: argparse.Namespace, what: object, status: int) -> int:
    print(f"arbitrage {options.command}: {what}", file=sys.stderr)
    return status


_COMMANDS: Mapping[
    tuple[str, str | None], Callable[[argparse.Namespace], Coroutine[Any, Any, int]]
] = {
    ("demo", None): _demo,
    ("serve", None): _serve,
    ("run", None): _run,
    ("estimate", None): _estimate,
    ("export", None): _export,
    ("report", None): _report,
    ("complete", None): _complete,
    ("teachers", None): _teachers,
    ("policy", "show"): _policy_show,
    ("policy", "snapshot"): _policy_snapshot,
    ("policy", "reset"): _policy_reset,
    ("replay", None): _replay,
    ("reward", "train"): _reward_train,
}


if __name__ == "__main__":
    main()
