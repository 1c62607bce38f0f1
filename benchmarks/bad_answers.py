"""Bad answers made from the good ones of examples/reward/answers, for each kind and language.

`KINDS` are what a gate should stop: the gate, and the texts that one question's answers turn into.
`HACKS` are what would win where a reward could be fooled: each takes the honest mediocre answer of
a question and makes it look like more, without answering any better.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice

from corpus import Question, questions
from stock_phrases import CONSTANT, FILLER, PRAISE, REFUSAL

IDEOGRAPHS = ("ja", "th", "zh")  # words without spaces between them

TOKENS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "[/INST]", "</s>", "<|endoftext|>")


def number(question: Question) -> int:
    """The question's place in its language's file."""
    return questions()[question.language].index(question)


def another(question: Question, step: int = 7) -> Question:
    """Another question of the language."""
    asked = questions()[question.language]
    return asked[(number(question) + step) % len(asked)]


def elsewhere(question: Question) -> Question:
    """The same question in another language, not always in the same one."""
    others = [tag for tag in questions() if tag != question.language]
    place = number(question)
    return questions()[others[place % len(others)]][place]


def filled(text: str, sentences: Sequence[str], language: str) -> str:
    """The text, followed by the sentences again and again until it is ten times as long."""
    rounds = 10 * len(text) // min(map(len, sentences))
    return _joined([text, *islice(cycle(sentences), rounds)], language)[: 10 * len(text)]


def changed(text: str, source: str, language: str, every: int = 16) -> str:
    """The text with every 16th word from another text; letters, where words are not parted."""
    space = "" if language in IDEOGRAPHS else " "
    words, others = (t.split(" ") if space else list(t) for t in (text, source))
    for place in range(every // 2, len(words), every):
        words[place] = others[place % len(others)]
    return space.join(words)


def _joined(sentences: Sequence[str], language: str) -> str:
    return ("" if language in IDEOGRAPHS else " ").join(sentences)


def _wrong_language(question: Question) -> Iterator[str]:
    yield elsewhere(question).answer
    yield elsewhere(question).brief


def _repeated(question: Question) -> Iterator[str]:
    language, brief, answer = question.language, question.brief, question.answer
    yield " ".join([brief] * 4)
    yield f"{answer} {' '.join([brief] * 5)}"
    yield "\n".join(f"{place}. {brief}" for place in range(1, 9))
    yield f"{answer}\n\n{changed(answer, another(question).answer, language)}"


def _leaked(question: Question) -> Iterator[str]:
    token = TOKENS[number(question) % len(TOKENS)]
    yield f"{question.answer}{token}"
    yield f"{question.answer}\n<|im_start|>user\n{another(question).prompt}"
    yield f"{question.answer}\nUser: {another(question).prompt}\nAssistant: {question.brief}"
    yield f"### Response:\n{question.answer}"


def _unbalanced(question: Question) -> Iterator[str]:
    yield f"<think>{question.brief}\n\n{question.answer}"
    yield f"{question.brief} </think> {question.answer}"
    yield f"{question.brief}\n<reasoning>{question.brief}</reasoning>\n{question.answer}"


def _refused(question: Question) -> Iterator[str]:
    yield from REFUSAL[question.language]


def _copied(question: Question) -> Iterator[str]:
    yield question.prompt
    yield f"{PRAISE[question.language][0]} {question.prompt}"


def _constant(question: Question) -> Iterator[str]:
    yield CONSTANT[question.language]
    yield f"„{question.prompt}“ {CONSTANT[question.language]}"


KINDS: Mapping[str, tuple[str, Callable[[Question], Iterator[str]]]] = {
    "wrong language": ("wrong_language", _wrong_language),
    "repeated": ("repetition", _repeated),
    "leaked template": ("leaked_template", _leaked),
    "unbalanced tags": ("unbalanced_reasoning", _unbalanced),
    "refusal": ("refusal", _refused),
    "copied prompt": ("copied_prompt", _copied),
    "constant text": ("constant_text", _constant),
}
HACKS: Mapping[str, Callable[[Question], str]] = {
    "constant": lambda q: CONSTANT[q.language],
    "copied": lambda q: q.prompt,
    "praise": lambda q: " ".join([PRAISE[q.language][0], q.brief, PRAISE[q.language][1]]),
    "praised copy": lambda q: " ".join([PRAISE[q.language][0], q.prompt]),
    "looped x10": lambda q: filled(q.brief, [q.brief], q.language),
    "filler": lambda q: _joined([q.brief, *FILLER[q.language]], q.language),
    "filler x10": lambda q: filled(q.brief, FILLER[q.language], q.language),
    "wrong language": lambda q: elsewhere(q).answer,
}
