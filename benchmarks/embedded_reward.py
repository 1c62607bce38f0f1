"""Train the head of the embedded reward, and measure it on questions that it has not seen.

The packaged Gemma 3 270M reads a sample of the texts of `reward_pairs.py`: of each question to
learn from, the good answers and four bad ones, an off-topic one among them; of each held-out
question, all. Printed are the accuracy of the likelihood ratio and of the head, by language and by
kind. The features that the model gives are kept in a file: only the first run takes long.

    python benchmarks/embedded_reward.py -o reward/embedded_head.safetensors  # most of an hour
    python benchmarks/embedded_reward.py --unseen-languages ar ja th uk  # not learned from
    python benchmarks/embedded_reward.py --unseen-kinds filler praise    # the same
    python benchmarks/embedded_reward.py --judged 30                     # agreement with judges
"""

import argparse
import hashlib
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from corpus import Question, questions
from gates import DATA, rows
from reward_pairs import KINDS, MARGINS, Pair, pairs

from reward import pairs as training
from reward.head import Head
from reward.reader import Reader
from reward.report import Accuracy, accuracies
from reward.train import TrainSettings
from reward.train_head import learn_head, load, margins_of, read, texts_of
from reward.wording import Wording

BACKBONE = "gemma-3-270m"
KINDS_A_QUESTION = 3
# seen while the features were chosen: figures without them are untouched by that choice
LOOKED_AT = frozenset({"sleep", "budget", "bread-stale", "interview", "bike-tyre"})
# what only the prompt tells from a good answer, and what is a good answer and more
ALWAYS = {"off_topic", "praise", "filler"}
ANSWER_TOKENS, JUDGED_TOKENS = 128, 512
TOKENS_AT_ONCE = 2048
SETTINGS = TrainSettings(pairs=(), output=Path(), model=BACKBONE, weigh_by_margin=True)
MIN_MARGIN = 2.0
WIDTH = 640
# among the features, the mean log probability of the tokens after the question, and alone
GIVEN, ALONE = 3 * WIDTH, 3 * WIDTH + 14

Features = Mapping[tuple[str, str], torch.Tensor]


def sampled(question: Question) -> Iterator[Pair]:
    """Its pairs whose texts are read."""
    drawn = {*sorted(KINDS, key=lambda kind: _draw(kind, question))[:KINDS_A_QUESTION], *ALWAYS}
    for pair in pairs(question):
        if question.held_out or pair.kind in {"brief", *drawn}:
            yield pair


def _draw(kind: str, question: Question) -> bytes:
    return hashlib.sha256(f"{kind}/{question.language}/{question.id}".encode()).digest()


def as_training(pair: Pair) -> training.Pair:
    """The pair as a training reads it; parallel questions stay together."""
    question = pair.chosen.question
    return training.Pair(
        language=question.language,
        prompt=question.prompt,
        chosen=pair.chosen.text,
        rejected=pair.rejected.text,
        margin=MARGINS.get(pair.kind, 1.0),
        prompt_id=question.id,
    )


def features_of(path: Path, texts: Collection[tuple[str, str]], max_tokens: int) -> Features:
    """The features of answers to their prompts: those kept in a file, and those read now.

    Args:
        path: the file, which has all of them afterwards.
        max_tokens: how much of an answer is read.
    """
    features: Features = torch.load(path) if path.exists() else {}
    missing = sorted(set(texts) - features.keys())
    if missing:
        device = torch.device("cpu")
        tokenizer, model = load(BACKBONE, device)
        wording = Wording(tokenizer, TOKENS_AT_ONCE, max_tokens)
        features = {
            **features,
            **read(missing, wording, Reader(model, device), TOKENS_AT_ONCE, _tell),
        }
        torch.save(features, path)
    return features


def _tell(line: str) -> None:
    print(line, flush=True)


def ratio_margins(compared: Sequence[training.Pair], features: Features) -> list[float]:
    """Of each pair, how much more relevance + fluency / 2 the chosen answer has."""
    return [
        _ratio(features[pair.prompt, pair.chosen]) - _ratio(features[pair.prompt, pair.rejected])
        for pair in compared
    ]


def _ratio(row: torch.Tensor) -> float:
    given, alone = float(row[GIVEN]), float(row[ALONE])
    return given - alone / 2


def print_rows(title: str, found: Sequence[Accuracy]) -> None:
    """A line a language."""
    for row in found:
        share = f"{row.accuracy:.1%} ({row.low:.1%} to {row.high:.1%})"
        print(f"{title} | {row.language} | {row.prompts} prompts, {row.pairs} pairs | {share}")


def print_kinds(tested: Sequence[Pair], margins: Sequence[float]) -> None:
    """A line a kind: its accuracy, and that of its worst language."""
    for kind in ("brief", *KINDS):
        hits: dict[str, list[float]] = {}
        for pair, margin in zip(tested, margins, strict=True):
            if pair.kind == kind:
                hit = float(margin > 0) + float(margin == 0) / 2
                hits.setdefault(pair.chosen.question.language, []).append(hit)
        if hits:
            means = {language: sum(row) / len(row) for language, row in hits.items()}
            worst = min(means, key=lambda language: means[language])
            mean = sum(map(sum, hits.values())) / sum(map(len, hits.values()))
            print(f"kind | {kind} | {mean:.1%} | worst: {worst} {means[worst]:.1%}")


def print_figures(title: str, tested: Sequence[Pair], features: Features, head: Head) -> None:
    """The accuracies of the ratio and of the head on some pairs."""
    compared = [as_training(pair) for pair in tested]
    print_rows(f"{title}, ratio", accuracies(compared, ratio_margins(compared, features)))
    margins = margins_of(compared, features, head)
    print_rows(f"{title}, head", accuracies(compared, margins))
    print_kinds(tested, margins)


def print_agreement(head: Head, cache: Path, pairs_a_language: int) -> None:
    """How the head and the ratio agree with strong judges on good answers of large models."""
    taken: Counter[str] = Counter()
    judged = []
    for row in rows("preferences"):
        if row["margin"] >= MIN_MARGIN and taken[row["language"]] < pairs_a_language:
            taken[row["language"]] += 1
            texts = (row["prompt"], row["chosen"], row["rejected"])
            judged.append(training.Pair(row["language"], *texts, prompt_id=row["prompt_id"]))
    read_texts = {text for pair in judged for text in texts_of(pair)}
    path = cache / f"judged_{pairs_a_language}_features.pt"
    features = features_of(path, read_texts, JUDGED_TOKENS)
    print_rows("judges, ratio", accuracies(judged, ratio_margins(judged, features)))
    print_rows("judges, head", accuracies(judged, margins_of(judged, features, head)))


def main() -> None:
    """Parses the arguments, trains and prints."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("-o", "--output", type=Path, help="where to write the head")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--unseen-languages", nargs="+", default=[], metavar="TAG")
    parser.add_argument("--unseen-kinds", nargs="+", default=[], choices=[*KINDS], metavar="KIND")
    parser.add_argument("--judged", type=int, metavar="N", help="judged pairs a language, too")
    arguments = parser.parse_args()
    drawn = [p for each in questions().values() for q in each for p in sampled(q)]
    texts = {text for pair in drawn for text in texts_of(as_training(pair))}
    path = arguments.cache / "embedded_reward_features.pt"
    features = features_of(path, texts, ANSWER_TOKENS)

    def seen(pair: Pair) -> bool:
        language = pair.chosen.question.language
        return not {language, pair.kind} & {*arguments.unseen_languages, *arguments.unseen_kinds}

    learn = [as_training(p) for p in drawn if not p.chosen.question.held_out and seen(p)]
    learned = learn_head(SETTINGS, learn, features, WIDTH)
    print(f"learned from {len(learn)} pairs, L2 penalty {learned.penalty:g}")
    parted = arguments.unseen_languages or arguments.unseen_kinds
    held = [p for p in drawn if p.chosen.question.held_out and not (parted and seen(p))]
    print_figures("held out", held, features, learned.head)
    fresh = [p for p in held if p.chosen.question.id not in LOOKED_AT]
    print_figures("held out, never looked at", fresh, features, learned.head)
    if arguments.output:
        learned.head.save(arguments.output)
    if arguments.judged and DATA.is_dir():
        print_agreement(learned.head, arguments.cache, arguments.judged)


if __name__ == "__main__":
    main()
