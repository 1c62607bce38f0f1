"""What each command of `arbitrage` does; `commands/line.py` tells what may be typed."""

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
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from arbitrage import config, errors
from commands.line import USAGE, parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    import server
    from arbitrage.estimate.forecast import Estimate
    from arbitrage.types import Candidate
    from commands.replay import Report

DONE, FAILED, INTERRUPTED = 0, 1, 130
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
    except BrokenPipeError:
        status = _unread()
    except (errors.ArbitrageError, OSError) as error:
        status = _complain(options, error, FAILED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        status = _complain(options, "interrupted; what was accepted is kept", INTERRUPTED)
    sys.exit(status)


def _unread() -> int:
    """Prints nothing more, since whoever read it has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


async def _serve(options: argparse.Namespace) -> int:
    import server  # noqa: PLC0415 - the engine's imports, which most commands do without
    from service import logs  # noqa: PLC0415 - as above

    def ready(running: server.Running) -> None:
        metrics = f", metrics at {running.metrics_url}" if running.metrics_url else ""
        openai = f", OpenAI's API at {running.openai_url}" if running.openai_url else ""
        print(f"serving on {running.address}{metrics}{openai}", flush=True)

    logs.discreet(options.verbose)
    settings = config.load(options.config)
    logs.discreet(options.verbose, settings.service.log)
    stopped_by = await server.serve(settings, ready, lambda: config.load(options.config))
    try:
        print(f"stopped; samples are in {settings.sink.path}", flush=True)
    except BrokenPipeError:  # which is no failure of the service
        _unread()
    return INTERRUPTED if stopped_by == signal.SIGINT else DONE


async def _complete(options: argparse.Namespace) -> int:
    from arbitrage.client import AsyncClient, environment  # noqa: PLC0415 - as above

    text = _stdin() if options.text == "-" else options.text
    async with AsyncClient(options.address, **environment(attempts=1)) as client:
        sample = await client.complete(
            text,
            language=options.language,
            include_candidates=True,
            timeout_seconds=options.timeout,
        )
    if sample.winner and sample.winner.completion:  # a service sends no other
        print(sample.winner.completion.text)
        asked = ", ".join(map(_ending, sample.candidates))
        language, winner = sample.prompt.language, sample.winner.teacher
        print(f"[{language}] {winner} won; asked: {asked}", file=sys.stderr)
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
    from commands import policies  # noqa: PLC0415 - as above

    _out.print(await policies.show(_source(options), options.language))
    return DONE


async def _policy_snapshot(options: argparse.Namespace) -> int:
    from commands import policies  # noqa: PLC0415 - as above

    print(await policies.save(_source(options), options.file))
    return DONE


async def _policy_reset(options: argparse.Namespace) -> int:
    from commands import policies  # noqa: PLC0415 - as above

    print(await policies.reset(config.load(options.config)))
    return DONE


def _source(options: argparse.Namespace) -> config.Config | str:
    """What knows a policy: a configuration's folder, or a service."""
    return config.load(options.config) if options.config else str(options.address)


async def _token_new(options: argparse.Namespace) -> int:
    from commands import tokens  # noqa: PLC0415 - as above

    print(tokens.new(options.file, options.name, options.scopes))
    print(f"{options.name}: shown this once; {options.file} has its hash", file=sys.stderr)
    return DONE


async def _token_list(options: argparse.Namespace) -> int:
    from commands import tokens  # noqa: PLC0415 - as above

    for line in tokens.listed(options.file):
        print(line)
    return DONE


async def _token_revoke(options: argparse.Namespace) -> int:
    from commands import tokens  # noqa: PLC0415 - as above

    print(tokens.revoke(options.file, options.name))
    return DONE


async def _run(options: argparse.Namespace) -> int:
    from commands import run  # noqa: PLC0415 - as above

    settings = config.load(options.config)
    sink = dataclasses.replace(settings.sink, path=options.output)
    settings = dataclasses.replace(settings, sink=sink)
    if options.dry_run:
        _let_interrupt()
        for line in run.dry_run(settings, options.prompts, options.limit):
            print(line)
        return DONE
    counts, interrupted = await run.run(
        settings,
        options.prompts,
        _out,
        run.Options(
            limit=options.preview or options.limit,
            preview=bool(options.preview),
            no_cache=options.no_cache,
            mixed=options.mixed,
            grace_seconds=options.grace,
        ),
    )
    print(run.ending(counts, options.output))
    return INTERRUPTED if interrupted else DONE


async def _estimate(options: argparse.Namespace) -> int:
    from commands import estimate  # noqa: PLC0415 - as above

    _let_interrupt()
    settings = config.load(options.config)
    _tell(await estimate.of_files(settings, options.prompts, options.output), options)
    return DONE


async def _export(options: argparse.Namespace) -> int:
    from commands import dataset  # noqa: PLC0415 - as above

    _let_interrupt()
    filters = dataset.filters(vars(options))
    command = shlex.join(["arbitrage", *sys.argv[1:]])
    print(await dataset.export(options.runs, options.to, options.format, filters, command=command))
    return DONE


async def _report(options: argparse.Namespace) -> int:
    from commands import dataset  # noqa: PLC0415 - as above

    print(await dataset.report(options.run, options.to))
    return DONE


async def _replay(options: argparse.Namespace) -> int:
    from commands.replay import replay, target  # noqa: PLC0415 - as above

    settings = config.load(options.config) if options.config else None
    policy = target(
        settings.policy if settings else config.Policy(),
        kind=options.policy,
        fan_out=options.fan_out,
        seed=options.seed,
    )
    _let_interrupt()
    report = await replay(options.logs, policy, settings.teachers if settings else ())
    _tell(report, options)
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
    _let_interrupt()
    report = train(settings, lambda line: print(line, flush=True))
    print("\n".join(report.lines()))
    kind = "transformers" if settings.whole else "embedded"
    print(f'[reward]\nkind = "{kind}"\nmodel = "{settings.output}"')
    return DONE


async def _demo(options: argparse.Namespace) -> int:
    from commands import demo  # noqa: PLC0415 - as above

    return DONE if await demo.run(options.output, _out) else FAILED


def _let_interrupt() -> None:
    """Lets Ctrl-C reach long work that leaves the loop no turn."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _tell(found: Estimate | Report, options: argparse.Namespace) -> None:
    """Prints figures for people, or as JSON."""
    if options.json:
        print(json.dumps(found.plain(), ensure_ascii=False, allow_nan=False, indent=2))
    else:
        _out.print(*found.parts(), sep="\n")


def _stdin() -> str:
    """All of standard input.

    Raises:
        InvalidPrompt: it is not UTF-8.
    """
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.InvalidPrompt("stdin", f"is not UTF-8: {error.reason}") from None


def _ending(candidate: Candidate) -> str:
    """How a candidate ended, in a few words."""
    if candidate.failure:
        return f"{candidate.teacher} {candidate.failure.outcome}"
    if candidate.gates:
        return f"{candidate.teacher} stopped by {', '.join(g.gate for g in candidate.gates)}"
    reward = "not scored" if candidate.reward is None else f"{candidate.reward:+.2f}"
    return f"{candidate.teacher} {reward}"


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
    ("token", "new"): _token_new,
    ("token", "list"): _token_list,
    ("token", "revoke"): _token_revoke,
    ("replay", None): _replay,
    ("reward", "train"): _reward_train,
}


if __name__ == "__main__":
    main()
