"""Measure how often each gate stops a good answer, and how the embedded reward agrees with judges.

Good answers are those that strong judges preferred (preferences.jsonl.gz, six languages) and, for
their variety of scripts, real school problems read as if they were answers (mgsm.jsonl.gz, eleven
languages). A figure a line: the gate, the source, how many it stopped, and the share of them.

    python benchmarks/gates.py                   # under half a minute
    python benchmarks/gates.py --stopped refusal # shows what a gate stopped
    python benchmarks/gates.py --agreement 30    # 30 pairs a language: minutes, on a CPU
"""

import argparse
import asyncio
import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arbitrage import config
from arbitrage.types import Candidate, Completion, Prompt
from reward.gates import AnswerGates, open_gates
from reward.language import Detector

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MIN_MARGIN = 2.0
ANSWER_TOKENS = 128
FIGURES: Mapping[str, Callable[[Mapping[str, float]], float]] = {
    "relevance + fluency / 2": lambda raw: raw["relevance"] + raw["fluency"] / 2,
    "relevance": lambda raw: raw["relevance"],
    "likelihood": lambda raw: raw["relevance"] + raw["fluency"],
    "fluency": lambda raw: raw["fluency"],
}


@dataclass(frozen=True)
class Rate:
    """How many answers of a source a gate stopped, and which ones with what reason."""

    answers: int
    stopped: Sequence[tuple[Prompt, str, str]]

    @property
    def share(self) -> float:
        """Stopped answers, of all."""
        return len(self.stopped) / self.answers


def rows(name: str, folder: Path = DATA) -> Iterator[Any]:
    """The lines of a data file."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def good_answers(source: str, folder: Path = DATA) -> Iterator[tuple[Prompt, str]]:
    """Prompts, each with an answer that no gate should stop."""
    for row in rows(source, folder):
        if source == "preferences":
            yield Prompt.of(row["prompt"], language=row["language"]), row["chosen"]
        else:
            yield Prompt.of(row["id"], language=row["language"]), row["prompt"]


async def false_rejections(source: str, gates: AnswerGates, folder: Path = DATA) -> dict[str, Rate]:
    """What each gate stopped, by its name; gates that stopped nothing are left out."""
    answers = list(good_answers(source, folder))
    stopped = defaultdict(list)
    for prompt, text in answers:
        (verdicts,) = await gates.inspect(prompt, [Candidate("good", Completion(text))])
        for verdict in verdicts:
            stopped[verdict.gate].append((prompt, text, verdict.reason))
    return {gate: Rate(len(answers), hits) for gate, hits in stopped.items()}


async def print_rates(shown: str | None) -> None:
    """Prints the rate of every gate on both sources, and what one of them stopped."""
    for source in ("preferences", "mgsm"):
        gates = open_gates(None, Detector())
        rates = await false_rejections(source, gates)
        await gates.close()
        for gate, rate in rates.items():
            languages = Counter(prompt.language for prompt, _, _ in rate.stopped)
            by_language = " ".join(f"{tag} {count}" for tag, count in languages.most_common())
            count = f"{len(rate.stopped)} of {rate.answers}"
            print(f"{gate} | {source} | {count} | {rate.share:.2%} | {by_language}")
            for prompt, text, reason in rate.stopped if gate == shown else ():
                print(f"    {prompt.language} {reason}: {' '.join(text.split())[:120]}")
        clean = [gate for gate in gates.names if gate not in rates]
        print(f"{', '.join(clean)} | {source} | none")


async def print_agreement(pairs_a_language: int) -> None:
    """Prints how often each figure of the embedded reward prefers what the judge preferred."""
    # the gates are measured without torch
    from reward.embedded import open_reward  # noqa: PLC0415

    reward = await open_reward(config.EmbeddedReward())
    tokenizer: Any = reward._tokenizer  # noqa: SLF001 - the same tokens as those that are scored
    taken: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    for row in rows("preferences"):
        language = row["language"]
        if row["margin"] < MIN_MARGIN or taken[language] == pairs_a_language:
            continue
        taken[language] += 1
        texts = [_first_tokens(tokenizer, row[key]) for key in ("chosen", "rejected")]
        candidates = [Candidate(str(i), Completion(text)) for i, text in enumerate(texts)]
        chosen, rejected = await reward.score(Prompt.of(row["prompt"]), candidates)
        for name, figure in FIGURES.items():
            agreed[name] += figure(chosen.raw) > figure(rejected.raw)
    await reward.close()
    pairs = taken.total()
    print(f"pairs | {pairs} | {' '.join(f'{tag} {count}' for tag, count in taken.items())}")
    for name in FIGURES:
        print(f"agreement | {name} | {agreed[name]} of {pairs} | {agreed[name] / pairs:.1%}")


def _first_tokens(tokenizer: Any, text: str) -> str:
    ids = tokenizer(text.strip(), add_special_tokens=False).input_ids[:ANSWER_TOKENS]
    cut: str = tokenizer.decode(ids)
    return cut


def main() -> None:
    """Parses the arguments and prints."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--stopped", metavar="GATE", help="show the answers that it stopped")
    parser.add_argument("--agreement", metavar="N", type=int, help="pairs a language to judge")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(f"{DATA} is not here: nothing to measure on")
        return
    if arguments.agreement:
        asyncio.run(print_agreement(arguments.agreement))
    else:
        asyncio.run(print_rates(arguments.stopped))


if __name__ == "__main__":
    main()
