"""What may be typed: the commands of `arbitrage`, with their arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn, get_args

from arbitrage import config
from arbitrage.config.policy import POLICY_KINDS
from service.identity import SCOPES
from service.tokens import NAME

USAGE = 2
"""Exit status for wrong usage, and for a wrong configuration."""

_ADDRESS = config.Service().listen


def _utf8(argument: str) -> str:
    """An argument that can be sent; a terminal may pass bytes that are no text."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError("is not UTF-8") from error
    return argument


def _address(argument: str) -> str:
    """An address to call, as far as that can be told before it is called."""
    host, _, port = argument.rpartition(":")
    if not (host and argument.isascii() and argument.isprintable() and port.isdecimal()):
        raise argparse.ArgumentTypeError(f"{argument!r} is not host:port")
    return argument


def _token_name(argument: str) -> str:
    """A name that a token may have."""
    if not NAME.fullmatch(argument):
        raise argparse.ArgumentTypeError(f"{argument!r} is not 1 to 63 of A-Z a-z 0-9 _ -")
    return argument


def _count(argument: str) -> int:
    """A number of at least 1."""
    if not (argument.isascii() and argument.isdecimal() and int(argument)):
        raise argparse.ArgumentTypeError(f"{argument!r} is no number from 1 on")
    return int(argument)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Wrong usage is one line, too."""
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """A parser whose answer has the `command`, and where that has several, the `action`."""
    root = _Parser(prog="arbitrage", description="Arbitrage between language models.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="the main job on embedded teachers: no keys")
    demo.add_argument("-o", "--output", type=Path, default=Path("out/demo"))

    serve = commands.add_parser("serve", help="run the gRPC service until Ctrl-C or SIGTERM")
    serve.add_argument("-c", "--config", type=Path, required=True)
    serve.add_argument(
        "-v", "--verbose", action="count", default=0, help="log more; -vv may quote prompts"
    )

    complete = commands.add_parser("complete", help="send one prompt to a running service")
    complete.add_argument("text", type=_utf8, help="the prompt; - reads it from stdin")
    complete.add_argument(
        "-l", "--language", type=_utf8, help="BCP-47 tag; by default it is detected"
    )
    complete.add_argument("-t", "--timeout", type=float, default=120.0, help="seconds")
    _add_address(complete)

    teachers = commands.add_parser("teachers", help="list the pool of a configuration")
    teachers.add_argument("-c", "--config", type=Path, required=True)
    teachers.add_argument("--check", action="store_true", help="call each teacher once")

    _add_run(commands)
    _add_estimate(commands)
    _add_export(commands)
    _add_report(commands)
    _add_policy(commands)
    _add_token(commands)
    _add_replay(commands)
    _add_reward(commands)
    return root


def _add_address(command: Any) -> None:
    command.add_argument(
        "-a", "--address", type=_address, default=_ADDRESS, help="host:port of the service"
    )


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="answer the prompts of files; again, it goes on")
    run.add_argument("-c", "--config", type=Path, required=True)
    run.add_argument(
        "prompts", nargs="+", metavar="PROMPTS", help="files or folders; - is JSONL on stdin"
    )
    run.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    run.add_argument("--limit", type=_count, metavar="N", help="the first rows alone")
    run.add_argument("--dry-run", action="store_true", help="read the prompts, ask nobody")
    run.add_argument(
        "--preview", type=_count, metavar="N", help="the first rows alone, with all answers shown"
    )
    run.add_argument("--no-cache", action="store_true", help="pay again for what was paid for")
    run.add_argument("--mixed", action="store_true", help="go on where the reward has changed")
    run.add_argument(
        "--grace", type=float, default=30.0, metavar="S", help="for what is in flight at Ctrl-C"
    )


def _add_estimate(commands: Any) -> None:
    estimate = commands.add_parser("estimate", help="calls, tokens, cost and time, before a run")
    estimate.add_argument("-c", "--config", type=Path, required=True)
    estimate.add_argument("prompts", nargs="+", metavar="PROMPTS", help="as of `arbitrage run`")
    estimate.add_argument("-o", "--output", type=Path, metavar="OUT", help="what is left of a run")
    estimate.add_argument("--json", action="store_true", help="all figures as one JSON object")


def _add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="finished runs as a data set to train on")
    export.add_argument("runs", type=Path, nargs="+", metavar="OUT", help="a run's output folder")
    export.add_argument("--format", required=True, choices=("sft", "dpo", "scored"))
    export.add_argument(
        "--to", type=Path, required=True, metavar="PATH", help="a folder, *.jsonl or *.parquet"
    )
    export.add_argument(
        "-l",
        "--language",
        dest="languages",
        metavar="LANGUAGE",
        type=_utf8,
        action="append",
        default=[],
        help="this one; repeatable",
    )
    export.add_argument("--min-reward", metavar="X", help="a reward, or N%% of each language's")
    export.add_argument("--min-margin", metavar="X", help="the same of margins")
    export.add_argument(
        "--dedupe", type=float, metavar="T", help="no two prompts as alike as this, such as 0.8"
    )
    export.add_argument("--dedupe-answers", type=float, metavar="T", help="the same of answers")
    export.add_argument(
        "--decontaminate",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="leave out what overlaps with this evaluation set; repeatable",
    )
    export.add_argument("--balance", metavar="N", help="samples a language: N, min or median")
    export.add_argument(
        "--keep", choices=("random", "best"), default="random", help="which, when balanced"
    )
    export.add_argument(
        "--rejected",
        choices=("worst", "second", "random"),
        default="worst",
        help="what the winner is paired with, for dpo",
    )
    export.add_argument(
        "--only-trainable", action="store_true", help="teachers that may train others alone"
    )
    export.add_argument("--seed", type=int, default=0)


def _add_report(commands: Any) -> None:
    report = commands.add_parser("report", help="a run as one HTML file to look at")
    report.add_argument("run", type=Path, metavar="OUT", help="its output folder")
    report.add_argument("--to", type=Path, metavar="FILE", help="by default OUT/report.html")


def _add_policy(commands: Any) -> None:
    policy = commands.add_parser("policy", help="what was learned, by a service or in its folder")
    actions = policy.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="expected rewards, shares and costs, per language")
    show.add_argument("-l", "--language", type=_utf8, help="this language alone")
    snapshot = actions.add_parser("snapshot", help="write what was learned to a file")
    snapshot.add_argument("file", type=Path, metavar="FILE", help="compressed if named *.gz")
    for action in (show, snapshot):
        source = action.add_mutually_exclusive_group()
        _add_address(source)
        source.add_argument("-c", "--config", type=Path, help="read its folder, ask no service")
    reset = actions.add_parser("reset", help="forget what was saved in a configuration's folder")
    reset.add_argument("-c", "--config", type=Path, required=True)


def _add_token(commands: Any) -> None:
    token = commands.add_parser("token", help="tokens that a service's callers show")
    actions = token.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make one; it is printed once, the file gets its hash")
    revoke = actions.add_parser("revoke", help="take one back; services know it at once")
    for action in (new, revoke):
        action.add_argument("name", type=_token_name, metavar="NAME")
    new.add_argument(
        "--scope",
        dest="scopes",
        action="append",
        choices=SCOPES,
        required=True,
        help="what it is for: complete, jobs, or admin, which is for all; repeatable",
    )
    listed = actions.add_parser("list", help="names and scopes")
    for action in (new, revoke, listed):
        action.add_argument(
            "-f", "--file", type=Path, required=True, help="as [service] auth_tokens names it"
        )


def _add_replay(commands: Any) -> None:
    replay = commands.add_parser("replay", help="what a policy would have got on finished runs")
    replay.add_argument("logs", type=Path, nargs="+", metavar="LOG", help="a run's output folder")
    replay.add_argument(
        "--policy", required=True, choices=get_args(POLICY_KINDS), metavar="NAME", help="its kind"
    )
    replay.add_argument("-c", "--config", type=Path, help="its settings, and whom it may ask")
    replay.add_argument(
        "--fan-out", type=_count, default=1, metavar="N", help="teachers it asks of a prompt"
    )
    replay.add_argument("--seed", type=int, help="by default the configuration's")
    replay.add_argument("--json", action="store_true", help="all figures as one JSON object")


def _add_reward(commands: Any) -> None:
    reward = commands.add_parser("reward", help="reward models of your own")
    actions = reward.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="train one on pairs of a better and a worse answer")
    train.add_argument("pairs", type=Path, nargs="+", help="JSONL, also gzip: language, prompt, "
                       "chosen, rejected, and margin or not")  # fmt: skip
    train.add_argument("-o", "--output", type=Path, required=True, help="a folder for the model")
    train.add_argument("--model", default="gemma-3-270m", help="the model to start from")
    train.add_argument("--whole", action="store_true", help="train every weight, not only a head")
    train.add_argument("--epochs", type=int, help="passes over the pairs")
    train.add_argument("--lr", type=float, default=1e-5, help="peak learning rate, for --whole")
    train.add_argument("--max-tokens", type=int, default=1024, help="of a prompt and its answer")
    train.add_argument("--max-tokens-per-batch", type=int, default=4096)
    train.add_argument("--weigh-by-margin", action="store_true", help="clear pairs count for more")
    train.add_argument("--holdout", type=float, default=0.2, help="share of the prompts to test on")
    train.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto")
    train.add_argument("--seed", type=int, default=0)
