"""Measure the gates: good answers stopped, bad ones stopped, hacks that win, and the time it takes.

Good answers are those that strong judges preferred (preferences.jsonl.gz, six languages), real
school problems read as if they were answers (mgsm.jsonl.gz, eleven languages), and both answers of
each question of examples/reward/answers (fourteen). Bad ones are made from the latter.

    python benchmarks/gates.py                   # about a minute
    python benchmarks/gates.py --stopped refusal # shows what a gate stopped of the good ones
    python benchmarks/gates.py --hacks 6         # 6 questions a language: minutes, on a CPU
"""

import argparse
import asyncio
import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from time import process_time
from typing import Any

from bad_answers import KINDS
from corpus import questions

from arbitrage.types import Candidate, Completion, Prompt
from reward.gates import AnswerGates, open_gates
from reward.language import Detector

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SOURCES = ("preferences", "mgsm", "answers")
LONG = 100_000


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
    if source == "answers":
        for question in (each for asked in questions().values() for each in asked):
            prompt = Prompt.of(question.prompt, language=question.language)
            yield prompt, question.answer
            yield prompt, question.brief
        return
    for row in rows(source, folder):
        asked, answered = ("prompt", "chosen") if source == "preferences" else ("id", "prompt")
        yield Prompt.of(row[asked], language=row["language"]), row[answered]


async def false_rejections(source: str, gates: AnswerGates, folder: Path = DATA) -> dict[str, Rate]:
    """What each gate stopped, by its name; gates that stopped nothing are left out."""
    answers = list(good_answers(source, folder))
    stopped = defaultdict(list)
    for prompt, text in answers:
        (verdicts,) = await gates.inspect(prompt, [Candidate("good", Completion(text))])
        for verdict in verdicts:
            stopped[verdict.gate].append((prompt, text, verdict.reason))
    return {gate: Rate(len(answers), hits) for gate, hits in stopped.items()}


async def detection(kind: str, language: str, detector: Detector) -> tuple[int, int]:
    """How many bad answers of a kind its gate stopped, and of how many."""
    name, make = KINDS[kind]
    gate = open_gates([name], detector)
    stopped = made = 0
    for question in questions()[language]:
        prompt = Prompt.of(question.prompt, language=language)
        candidates = [Candidate("bad", Completion(text)) for text in make(question)]
        verdicts = await gate.inspect(prompt, candidates)
        stopped += sum(map(bool, verdicts))
        made += len(candidates)
    await gate.close()
    return stopped, made


async def print_rates(shown: str | None, detector: Detector) -> None:
    """Prints the rate of every gate on each source, by language, and what one of them stopped."""
    print("# good answers: gate | source | stopped | share | by language")
    for source in SOURCES:
        if source != "answers" and not DATA.is_dir():
            print(f"{source}: skipped, {DATA} is not here")
            continue
        gates = open_gates(None, detector)
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


async def print_detection(detector: Detector) -> None:
    """Prints the share of bad answers that their gate stopped, in percent: kind by language."""
    languages = questions()
    print("# bad answers stopped, %: kind | gate | all |", " ".join(languages))
    for kind, (gate, _) in KINDS.items():
        counts = [await detection(kind, language, detector) for language in languages]
        stopped, made = map(sum, zip(*counts, strict=True))
        shares = " ".join(f"{100 * hit / of:.0f}" for hit, of in counts)
        print(f"{kind} | {gate} | {100 * stopped / made:.1f} of {made} | {shares}")


async def print_times(detector: Detector) -> None:
    """Prints the microseconds of a processor that all gates together take for one answer."""
    gates = open_gates(None, detector)
    print("# microseconds of CPU an answer, all gates: source | median | p95")
    for source in SOURCES:
        if source != "answers" and not DATA.is_dir():
            continue
        times = [await _micros(gates, *good) for good in good_answers(source)]
        print(f"{source} | {median(times):.0f} | {quantiles(times, n=20)[-1]:.0f}")
    for language in ("en", "ja", "hi"):
        asked = questions()[language]
        texts = " ".join(q.answer for q in asked)
        long = (texts * (LONG // len(texts) + 1))[:LONG]
        prompt = Prompt.of(asked[0].prompt, language=language)
        micros = median([await _micros(gates, prompt, f"{n} {long}") for n in range(5)])
        print(f"{LONG} characters of {language} | {micros:.0f} |")
    await gates.close()


async def _micros(gates: AnswerGates, prompt: Prompt, text: str) -> float:
    start = process_time()
    await gates.inspect(prompt, [Candidate("timed", Completion(text))])
    return (process_time() - start) * 1e6


async def _print_all(shown: str | None) -> None:
    detector = Detector()
    await print_rates(shown, detector)
    await print_detection(detector)
    await print_times(detector)


def main() -> None:
    """Parses the arguments and prints."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--stopped", metavar="GATE", help="show the good answers that it stopped")
    parser.add_argument("--hacks", metavar="N", type=int, help="questions a language to hack")
    arguments = parser.parse_args()
    if arguments.hacks:
        # the gates are measured without torch
        import hacks  # noqa: PLC0415

        asyncio.run(hacks.print_table(arguments.hacks))
    else:
        asyncio.run(_print_all(arguments.stopped))


if __name__ == "__main__":
    main()
