"""Measure how often each figure of the embedded reward prefers what strong judges preferred.

python benchmarks/agreement.py 30  # 30 pairs a language: minutes, on a CPU
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from gates import DATA, rows

from arbitrage import config
from arbitrage.types import Candidate, Completion, Prompt
from reward import open_reward

MIN_MARGIN = 2.0
ANSWER_TOKENS = 128
FIGURES: Mapping[str, Callable[[Mapping[str, float]], float]] = {
    "relevance + fluency / 2": lambda raw: raw["relevance"] + raw["fluency"] / 2,
    "relevance": lambda raw: raw["relevance"],
    "likelihood": lambda raw: raw["relevance"] + raw["fluency"],
    "fluency": lambda raw: raw["fluency"],
}


async def print_agreement(pairs_a_language: int) -> None:
    """Prints how often each figure of the embedded reward prefers what the judge preferred."""
    reward: Any = await open_reward(config.EmbeddedReward())
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pairs", type=int, help="pairs a language to judge")
    arguments = parser.parse_args()
    if DATA.is_dir():
        asyncio.run(print_agreement(arguments.pairs))
    else:
        print(f"{DATA} is not here: nothing to measure on")


if __name__ == "__main__":
    main()
