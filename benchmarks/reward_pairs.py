"""Make preference pairs: a good answer, and what a reward model must not fall for.

Good answers to 48 parallel questions in 14 languages are in `examples/reward/answers`; each
question has an `answer` and a `brief`, an honest but plain one. Against both stand answers that
are bad in one known way each (`KINDS`), most of them made from other good answers by rule; `weak`
ones were written by two small models, and are kept in `examples/reward/weak.jsonl`. What is padded
with praise or filler is the brief answer. A quarter of the questions is held out; their phrases of
politeness and padding are others than those of the rest.

    python benchmarks/reward_pairs.py -o pairs.jsonl.gz   # seconds; see arbitrage reward train
    python benchmarks/reward_pairs.py --write-weak        # asks the small models again: minutes
"""

import argparse
import asyncio
import gzip
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from pathlib import Path

from corpus import FOLDER, Question, questions, rows

from arbitrage import config
from arbitrage.types import Prompt
from teachers import open_pool

WEAK = {"smollm2-135m-instruct": 1.0, "gemma-3-270m": 1.2}
"""The models that write weak answers, and at which temperature."""
_SENTENCE = re.compile(r".+?(?:[.!?؟।]+(?=\s|$)|[。！？]+|$)", re.DOTALL)
_NO_SPACES = {"ja", "th", "zh"}
_ENOUGH_TO_MISREAD = 8


@dataclass(frozen=True, slots=True)
class Text:
    """An answer to a question: of kind `answer` or `brief`, or of one of the bad `KINDS`."""

    question: Question
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to a question of which the first is better, and what is bad about the other."""

    chosen: Text
    rejected: Text

    @property
    def kind(self) -> str:
        """The rejected answer's."""
        return self.rejected.kind


def texts(question: Question) -> Iterator[Text]:
    """Its good answers and one bad answer of each kind; the same ones every time."""
    yield Text(question, "answer", question.answer)
    yield Text(question, "brief", question.brief)
    for kind, spoil in KINDS.items():
        chance = random.Random(f"{kind} {question.language} {question.id}")  # noqa: S311
        spoiled = spoil(question, chance)
        if spoiled and spoiled.strip() not in {question.answer, question.brief}:
            yield Text(question, kind, spoiled.strip())


def pairs(question: Question) -> Iterator[Pair]:
    """Each good answer before each bad one, and the full answer before the brief one."""
    answer, brief, *bad = texts(question)
    yield Pair(answer, brief)
    for text in bad:
        yield Pair(answer, text)
        yield Pair(brief, text)


def _wrong_language(question: Question, chance: random.Random) -> str:
    """The same answer in another language, one time in four in English."""
    others = [language for language in questions() if language != question.language]
    language = chance.choice(others)
    if question.language != "en" and chance.random() < 1 / 4:
        language = "en"
    (same,) = (other for other in questions()[language] if other.id == question.id)
    return _either(same, chance)


def _off_topic(question: Question, chance: random.Random) -> str:
    """An answer to another question of the same split."""
    asked = questions()[question.language]
    others = [q for q in asked if q.id != question.id and q.held_out == question.held_out]
    return _either(chance.choice(others), chance)


def _looped_sentence(question: Question, chance: random.Random) -> str:
    sentence = chance.choice(_sentences(_either(question, chance)))
    return _joined([sentence] * chance.randint(3, 8), question.language)


def _looped_paragraph(question: Question, chance: random.Random) -> str:
    return "\n\n".join([question.answer] * chance.randint(2, 4))


def _cut_sentence(question: Question, chance: random.Random) -> str:
    """Ends after a word in the middle of a sentence, the last one at times."""
    units = _units(question.answer, question.language)
    return "".join(units[: int(len(units) * chance.uniform(0.3, 0.9))]).rstrip(".!?。！？؟।")


def _cut_word(question: Question, chance: random.Random) -> str:
    text = question.answer[: int(len(question.answer) * chance.uniform(0.3, 0.95))]
    while text and not text[-1].isalpha():
        text = text[:-1]
    return text[:-1]


def _shuffled_words(question: Question, chance: random.Random) -> str:
    units = _units(_either(question, chance), question.language)
    chance.shuffle(units)
    return "".join(unit if unit[-1].isspace() else f"{unit} " for unit in units)


def _shuffled_characters(question: Question, chance: random.Random) -> str:
    """Every word of a text stirred within itself."""
    units = _units(_either(question, chance), question.language)
    return "".join("".join(chance.sample(unit, len(unit))) for unit in units)


def _dropped_characters(question: Question, chance: random.Random) -> str:
    share = chance.uniform(0.1, 0.3)
    return "".join(c for c in _either(question, chance) if chance.random() > share)


def _misread(question: Question, chance: random.Random) -> str:
    """UTF-8 read as Latin-1; a text with too little to misread loses characters to U+FFFD."""
    text = _either(question, chance)
    if sum(character > "\x7f" for character in text) >= _ENOUGH_TO_MISREAD:
        return text.encode().decode("latin-1")
    return "".join("\ufffd" if chance.random() < 1 / 6 else c for c in text)


def _weak(question: Question, _: random.Random) -> str | None:
    return weak_answers().get((question.language, question.id))


def _copied_prompt(question: Question, chance: random.Random) -> str:
    return _joined([question.prompt] * chance.choice((1, 1, 2)), question.language)


def _constant(question: Question, chance: random.Random) -> str:
    return _phrase("constant", question, chance)


def _praise(question: Question, chance: random.Random) -> str:
    """The brief answer with praise before it, behind it or on both sides, or an offer of more."""
    before, behind = (_phrase("praise", question, chance) for _ in range(2))
    offer = _phrase("constant", question, chance)
    parts = chance.choice(
        (
            [before, question.brief],
            [question.brief, behind],
            [before, question.brief, behind],
            [before, question.brief, offer],
        )
    )
    return _joined(parts, question.language)


def _filler(question: Question, chance: random.Random) -> str:
    """The brief answer with one to ten times its length of sentences that say nothing."""
    phrases = platitudes()[question.language]["filler"]
    some = list(phrases[-4:] if question.held_out else phrases[:-3])
    chance.shuffle(some)
    length = chance.choice((1, 2, 3, 10)) * len(question.brief)
    padding: list[str] = []
    while sum(map(len, padding)) < length and len(padding) < 2 * len(some):
        padding.append(some[len(padding) % len(some)])
    at = chance.randint(0, len(padding) // 2)
    return _joined([*padding[:at], question.brief, *padding[at:]], question.language)


KINDS: Mapping[str, Callable[[Question, random.Random], str | None]] = {
    "wrong_language": _wrong_language,
    "off_topic": _off_topic,
    "looped_sentence": _looped_sentence,
    "looped_paragraph": _looped_paragraph,
    "cut_sentence": _cut_sentence,
    "cut_word": _cut_word,
    "shuffled_words": _shuffled_words,
    "shuffled_characters": _shuffled_characters,
    "dropped_characters": _dropped_characters,
    "misread": _misread,
    "weak": _weak,
    "copied_prompt": _copied_prompt,
    "constant": _constant,
    "praise": _praise,
    "filler": _filler,
}
"""What can be bad about an answer, and how a question's is made so."""
MARGINS = {"off_topic": 4.0, "wrong_language": 3.0, "praise": 2.0, "filler": 2.0}
"""What pairs count in a training: of some, only the prompt tells the answers from good ones, and
others have a good answer in them."""


def _either(question: Question, chance: random.Random) -> str:
    return chance.choice((question.answer, question.brief))


def _phrase(role: str, question: Question, chance: random.Random) -> str:
    *known, unseen = platitudes()[question.language][role]
    return unseen if question.held_out else chance.choice(known)


def _sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()]


def _units(text: str, language: str) -> list[str]:
    """Words with the spaces behind them, or runs of three characters; together, the text."""
    pattern = r"(?s).{1,3}" if language in _NO_SPACES else r"\S+\s*"
    return re.findall(pattern, text.strip())


def _joined(parts: Sequence[str], language: str) -> str:
    return ("" if language in {"ja", "zh"} else " ").join(parts)


@cache
def platitudes() -> Mapping[str, Mapping[str, Sequence[str]]]:
    """By language: `constant` answers, `praise` and `filler`."""
    return {row["language"]: row for row in rows(FOLDER / "platitudes.jsonl")}


@cache
def weak_answers() -> Mapping[tuple[str, str], str]:
    """What a small model answered, by language and question."""
    return {(row["language"], row["id"]): row["answer"] for row in rows(FOLDER / "weak.jsonl")}


async def ask_small_models() -> str:
    """What the small models answer to every question, as JSONL."""
    entries = [
        {
            "name": name,
            "kind": "llama_cpp",
            "model": name,
            "max_concurrency": 8,
            "context_length": 4096,
            "timeout_seconds": 600.0,
            "sampling": {"temperature": heat, "top_p": 0.95, "max_tokens": 64, "seed": 11},
        }
        for name, heat in WEAK.items()
    ]
    pool = await open_pool(config.parse({"teachers": entries}).teachers)
    places = asyncio.Semaphore(16)

    async def ask(question: Question, arm: str) -> str:
        async with places:
            prompt = Prompt.of(question.prompt, language=question.language)
            candidate, *_ = await pool.ask(arm, prompt)
        text = candidate.completion.text.strip() if candidate.completion else ""
        row = {"language": question.language, "id": question.id, "teacher": arm, "answer": text}
        return json.dumps(row, ensure_ascii=False) + "\n" if text else ""

    # each model answers every other question, and each question in every other language
    turns = [
        (question, arm)
        for start, asked in enumerate(questions().values())
        for question, arm in zip(asked, islice(cycle(WEAK), start, None), strict=False)
    ]
    try:
        lines = await asyncio.gather(*(ask(*each) for each in turns))
    finally:
        await pool.close()
    return "".join(lines)


def write_pairs(path: Path) -> int:
    """Writes all pairs as `arbitrage reward train` reads them; returns how many."""
    lines = [
        json.dumps(
            {
                "language": language,
                "prompt_id": question.id,
                "prompt": question.prompt,
                "chosen": pair.chosen.text,
                "rejected": pair.rejected.text,
                "margin": MARGINS.get(pair.kind, 1.0),
                "kind": pair.kind,
            },
            ensure_ascii=False,
        )
        for language, asked in questions().items()
        for question in asked
        for pair in pairs(question)
    ]
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return len(lines)


def main() -> None:
    """Parses the arguments and writes."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("-o", "--output", type=Path, default=Path("pairs.jsonl.gz"))
    parser.add_argument("--write-weak", action="store_true", help="ask the small models again")
    arguments = parser.parse_args()
    if arguments.write_weak:
        lines = asyncio.run(ask_small_models())
        (FOLDER / "weak.jsonl").write_text(lines, encoding="utf-8")
        return
    print(f"{write_pairs(arguments.output)} pairs are in {arguments.output}")


if __name__ == "__main__":
    main()
