"""Each gate on answers that it must stop, and on good ones that it must not."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arbitrage.errors import ConfigError
from arbitrage.types import Candidate, Completion, Failure, Prompt
from reward.gates import (
    AnswerGates,
    ConstantText,
    WrongLanguage,
    copied_prompt,
    empty,
    open_gates,
    refusal,
    repetition,
    truncated,
)
from reward.language import Detector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
GATES = (
    "empty", "truncated", "wrong_language", "refusal", "repetition", "copied_prompt",
    "constant_text",
)  # fmt: skip
PROMPT = Prompt.of("Why does ice float?", language="en")
ICE = {
    "ar": "يطفو الجليد على الماء لأن كثافته أقل من كثافة الماء السائل.",
    "bs": "Led pluta na vodi jer mu je gustina manja od gustine tečne vode, i zato ostaje gore.",
    "da": "Is flyder på vand, fordi den har en lavere massefylde end flydende vand.",
    "de": "Eis schwimmt auf Wasser, weil es eine geringere Dichte hat als flüssiges Wasser.",
    "en": "Ice floats on water because it is less dense than the liquid water around it.",
    "hi": "बर्फ पानी पर तैरती है क्योंकि उसका घनत्व तरल पानी से कम होता है।",
    "hr": "Led pluta na vodi jer mu je gustoća manja od gustoće tekuće vode.",
    "id": "Es mengapung di atas air karena massa jenisnya lebih kecil daripada air.",
    "ja": "氷は液体の水よりも密度が小さいので、水に浮きます。",
    "ko": "얼음은 액체 상태의 물보다 밀도가 낮기 때문에 물에 뜹니다.",
    "ms": "Ais terapung di atas air kerana ketumpatannya lebih rendah daripada air.",
    "nb": "Is flyter fordi den har lavere tetthet enn vann, og derfor holder den seg oppe.",
    "nn": "Is flyt fordi han har lågare tettleik enn vatn, og difor held han seg oppe.",
    "ru": "Лёд плавает на воде, потому что его плотность меньше плотности жидкой воды.",
    "sr": "Лед плута на води зато што му је густина мања од густине течне воде.",
    "sr-Latn": "Led pluta na vodi zato što mu je gustina manja od gustine tečne vode.",
    "th": "น้ำแข็งลอยน้ำได้เพราะมีความหนาแน่นน้อยกว่าน้ำที่เป็นของเหลว",
    "zh": "冰的密度比液态水低，所以会浮在水面上。",
    "zh-Hant": "冰的密度比液態水低，所以會浮在水面上。",
}


def answer(text: str, finish_reason: str = "stop") -> Completion:
    return Completion(text, finish_reason)


def asked(language: str) -> Prompt:
    return Prompt.of("?", language=language)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.fixture
async def gates(detector: Detector) -> AsyncIterator[AnswerGates]:
    gates = open_gates(None, detector)
    yield gates
    await gates.close()


@pytest.mark.parametrize("text", ["", " \n\t", "...", "。！？", "— «»", "()", "\u200b\u200e", "*"])
def test_nothing_but_punctuation_is_empty(text: str) -> None:
    assert empty(PROMPT, answer(text))


@pytest.mark.parametrize("text", ["7", "Ja", "水", "ก", "ا", "👍", "½", "**x**", *ICE.values()])
def test_one_letter_digit_or_emoji_is_not_empty(text: str) -> None:
    assert not empty(PROMPT, answer(text))


def test_only_an_answer_cut_off_at_max_tokens_is_truncated() -> None:
    assert truncated(PROMPT, answer("Ice floats bec", "length"))
    assert not truncated(PROMPT, answer("Ice floats bec", "stop"))
    assert not truncated(PROMPT, answer("Ice floats bec", "content_filter"))


REFUSALS = """
I'm sorry, but I can't help with that.
I cannot answer this question.
**Sorry**, I am unable to provide that information.
As an AI language model, I cannot provide medical advice.
I apologize, but I cannot fulfill this request.
Unfortunately, I can’t assist with that.
Es tut mir leid, aber ich kann dir dabei nicht helfen.
Ich kann diese Frage leider nicht beantworten.
Leider kann ich keine Auskunft dazu geben.
Lo siento, pero no puedo ayudarte con eso.
No puedo responder a esa pregunta.
Je suis désolé, mais je ne peux pas vous aider.
Désolée, je ne peux pas répondre à cette question.
Sinto muito, mas não posso ajudar com isso.
Não posso responder a essa pergunta.
Mi dispiace, ma non posso aiutarti con questo.
Non sono in grado di rispondere a questa domanda.
К сожалению, я не могу вам помочь.
Извините, но я не могу ответить на этот вопрос.
На жаль, я не можу допомогти з цим.
Вибачте, я не можу відповісти на це питання.
申し訳ありませんが、お答えできません。
その質問にはお答えできません。
申し訳ありませんが、そのような内容を提供することはできません。
对不起，我无法回答这个问题。
抱歉，作为人工智能，我无法完成这个请求。
我无法提供医疗建议。
죄송합니다. 그 질문에는 답변할 수 없습니다.
죄송하지만 도와드릴 수 없습니다.
죄송하지만 그 정보는 제공할 수 없습니다.
عذرًا، لا أستطيع مساعدتك في ذلك.
آسف، لا يمكنني الإجابة على هذا السؤال.
माफ़ कीजिए, मैं इसमें आपकी मदद नहीं कर सकता।
क्षमा करें, मैं इस प्रश्न का उत्तर नहीं दे सकता।
ขออภัย ฉันไม่สามารถช่วยเรื่องนี้ได้
ขอโทษครับ ผมไม่สามารถตอบคำถามนี้ได้
""".strip().splitlines()
ORDINARY = """
I'm sorry for your loss. Grief takes time, and you can't rush it.
I am sorry to hear that you can't sleep. Try to go to bed at the same hour.
I can't wait to see you on Saturday!
I cannot recommend this book enough.
I can't help but smile when I think of it.
I won't give up on us.
Unfortunately, the train was late.
As an AI researcher, you will need statistics.
Ice floats. I'm sorry, but I can't help with the rest of it.
Es tut mir leid, dass du krank bist. Ruh dich aus.
Leider ist das nicht richtig: Die Hauptstadt ist Canberra.
Leider kann es dafür keine Garantie geben.
Lo siento mucho por tu pérdida.
No puedo creer lo bonito que es este lugar.
Désolé pour le retard ! Voici le plan.
Je ne peux pas m'empêcher de sourire.
Desculpe a demora. A resposta é 12.
Mi dispiace che tu non stia bene.
Non posso che consigliare questo ristorante.
К сожалению, это не так.
К сожалению, это не может быть правдой.
Я не могу дождаться лета.
На жаль, це не так.
На жаль, він не може прийти.
申し訳ありませんが、会議に遅れます。
すみませんが、駅はどこですか。
この店では返金に対応できません。
对不起，我迟到了。
我不能同意更多。
죄송합니다, 늦었습니다.
이 가게는 배달을 제공할 수 없습니다.
آسف على التأخير، إليك الخطة.
للأسف، هذا غير صحيح.
माफ़ कीजिए, मैं देर से आया।
ขออภัยในความล่าช้า นี่คือแผนงาน
""".strip().splitlines()


@pytest.mark.parametrize("text", REFUSALS)
def test_declining_to_answer_is_a_refusal(text: str) -> None:
    assert refusal(PROMPT, answer(text))
    assert refusal(PROMPT, answer(f"\n{text}\n\n{ICE['en']}"))


@pytest.mark.parametrize(
    "text",
    [
        "Sorry!",
        "Lo siento.",
        "Désolée !",
        "申し訳ありません。",
        "抱歉。",
        "죄송합니다.",
        "Извини...",
    ],
)
def test_an_apology_that_is_the_whole_answer_is_a_refusal(text: str) -> None:
    assert refusal(PROMPT, answer(text))
    assert not refusal(PROMPT, answer(f"{text} {ICE['en']}"))


@pytest.mark.parametrize("text", [*ORDINARY, *ICE.values()])
def test_an_apology_or_an_inability_alone_is_no_refusal(text: str) -> None:
    assert not refusal(PROMPT, answer(text))


@pytest.mark.parametrize(
    "text",
    [
        "Water " * 7,
        "water water water",
        "水は水は水は水は水は水は",
        "好的" * 40,
        "ขนมปัง " * 20,
        "الخبز " * 20,
        "Ice floats because it is less dense. " * 3,
        "氷は水よりも密度が小さいので浮きます。" * 5,
        f"{ICE['de']} " + "Das ist so. " * 40,
    ],
)
def test_saying_the_same_again_and_again_is_repetition(text: str) -> None:
    assert repetition(PROMPT, answer(text))


@pytest.mark.parametrize(
    "text",
    [
        *ICE.values(),
        "No, no.",
        "1000000000000000000000",
        "3.14159265358979323846264338327950288419716939937510",
        """Row, row, row your boat,
        Gently down the stream.
        Merrily, merrily, merrily, merrily,
        Life is but a dream.""",
        """Frère Jacques, Frère Jacques,
        Dormez-vous ? Dormez-vous ?
        Sonnez les matines ! Sonnez les matines !
        Ding, dang, dong. Ding, dang, dong.""",
        "\n".join(f"{n}² = {n * n}" for n in range(1, 30)),
        "\n".join(f"The square of {n} is {n * n}." for n in range(1, 11)),
        """Montag: Training um 18 Uhr. Dienstag: Training um 19 Uhr. Mittwoch: Ruhetag.
        Donnerstag: Training um 18 Uhr. Freitag: Training um 19 Uhr. Samstag: Ruhetag.
        Sonntag: Ruhetag.""",
        "name,age,city\nAnna,31,Berlin\nBen,32,Berlin\nCarl,33,Berlin\nDora,34,Hamburg",
        "我是学生，你是学生，他是学生；我是老师，你是老师，他是医生；我们都是北京大学的校友。",
    ],
)
def test_lists_songs_and_numbers_are_no_repetition(text: str) -> None:
    assert not repetition(PROMPT, answer(text))


def test_repetition_begins_where_two_fifths_are_old() -> None:
    different = "".join(chr(0x4E00 + n) for n in range(107))

    def with_distinct(count: int) -> str:
        """100 shingles of 8 characters; the last 7 new ones run into one letter's repetition."""
        start = different[:count]
        return start + start[-1] * (107 - count)

    assert not repetition(PROMPT, answer(different))
    assert not repetition(PROMPT, answer(with_distinct(60)))
    assert repetition(PROMPT, answer(with_distinct(59))) == "only 59% of it is new"


def test_a_copied_prompt_is_stopped() -> None:
    prompt = Prompt.of("Why does ice float on water? Explain it in two sentences.")
    for text in (
        prompt.text,
        prompt.text.upper() + "!!",
        "Q: " + prompt.text,
        "does ice float on water? Explain it in two sentences.",
        f"«{prompt.text}» OK then.",
    ):
        assert copied_prompt(prompt, answer(text)), text
    assert copied_prompt(Prompt.of("为什么冰会浮在水面上？"), answer("为什么冰会浮在水面上"))


def test_an_answer_that_quotes_its_prompt_is_not_copied() -> None:
    prompt = Prompt.of("Why does ice float on water? Explain it in two sentences.")
    for text in (f"{prompt.text} {ICE['en']}", "ice float", "", ICE["en"], "in two sentences"):
        assert not copied_prompt(prompt, answer(text)), text
    assert not copied_prompt(Prompt.of("Is it 12 or 21?"), answer("21"))


def test_copying_is_measured_at_four_fifths() -> None:
    prompt = Prompt.of("abcdefghij")
    assert copied_prompt(prompt, answer("abcdefgh"))
    assert not copied_prompt(prompt, answer("abcdefg"))
    assert copied_prompt(prompt, answer("abcdefghij 12"))
    assert not copied_prompt(prompt, answer("abcdefghij 123"))


@pytest.mark.parametrize("language", ["de", "th", "ja", "ar", "hi", "ko", "ru", "zh", "zh-Hant"])
def test_english_is_the_wrong_language_elsewhere(detector: Detector, language: str) -> None:
    gate = WrongLanguage(detector)
    reason = gate(asked(language), answer(ICE["en"]))
    assert reason == f"is in 'en', not in {language!r}"
    assert gate(asked("en"), answer(ICE["de"]))


@pytest.mark.parametrize("language", ICE)
def test_an_answer_in_the_language_of_the_prompt_passes(detector: Detector, language: str) -> None:
    assert not WrongLanguage(detector)(asked(language), answer(ICE[language]))


@pytest.mark.parametrize(
    "close", [("nb", "no", "nn", "da"), ("zh", "zh-Hant"), ("hr", "sr-Latn", "bs"), ("id", "ms")]
)
def test_close_languages_pass_for_one_another(detector: Detector, close: tuple[str, ...]) -> None:
    gate = WrongLanguage(detector)
    for language in close:
        for written in close:
            if written in ICE:
                assert not gate(asked(language), answer(ICE[written])), (language, written)


@pytest.mark.parametrize("found", ["sr", "hr", "bs"])
def test_a_sure_detector_does_not_part_close_languages(found: str) -> None:
    class Sure:
        def detect(self, text: str) -> str:
            assert text
            return found

    gate = WrongLanguage(Sure())
    for language in ("hr", "sr", "bs", "sr-Latn"):
        assert not gate(asked(language), answer(ICE["hr"]))
    assert gate(asked("sl"), answer(ICE["hr"]))


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Photosynthesis"),
        ("ja", "OpenAI"),
        ("th", "Yes, it is."),
        ("ar", "```python\nfor line in open('file'):\n    print(line)\n```"),
        ("ru", "1024 * 768 = 786432, 12 + 12 = 24"),
        ("fr", "https://example.org/a/very/long/address/that/is/no/prose"),
        ("und", ICE["en"]),
        ("haw", ICE["en"]),  # no detector here knows Hawaiian, so nothing can be held against it
    ],
)
def test_what_cannot_be_told_passes(detector: Detector, language: str, text: str) -> None:
    assert not WrongLanguage(detector)(asked(language), answer(text))


def test_one_answer_to_many_prompts_is_constant() -> None:
    gate = ConstantText()
    first, second, third = (Prompt.of(f"question {number}") for number in range(3))
    text = answer("The answer to your question is forty-two.")
    for prompt in (first, first, second, first, second):
        assert not gate(prompt, text)
    assert gate(third, text) == "was the answer to 3 different prompts"
    assert gate(first, text)
    assert gate(Prompt.of("question 9"), answer("the ANSWER to your question: is forty two"))
    assert not gate(third, answer(ICE["en"]))


def test_the_same_question_under_another_id_is_the_same_prompt() -> None:
    gate = ConstantText()
    for number in range(9):
        assert not gate(Prompt.of("Why does ice float?", prompt_id=str(number)), answer(ICE["en"]))


@pytest.mark.parametrize("text", ["Yes.", "42", "true", "はい", "水素", "B) 1969", "..."])
def test_short_answers_are_never_constant(text: str) -> None:
    gate = ConstantText()
    assert not any(gate(Prompt.of(f"question {n}"), answer(text)) for n in range(50))


def test_the_memory_of_constant_answers_is_bounded() -> None:
    gate = ConstantText()
    for number in range(6_000):
        gate(Prompt.of(f"question {number}"), answer(f"The answer to that question is {number}."))
    assert len(gate._prompts) == 4096
    constant = answer("The answer to your question is forty-two.")
    stopped = [gate(Prompt.of(f"question {number}"), constant) for number in range(1_000)]
    assert sum(map(bool, stopped)) == 998
    assert sum(map(len, gate._prompts.values())) == 4095 + 3


async def test_every_gate_that_stops_an_answer_is_named_in_order(gates: AnswerGates) -> None:
    prompt = Prompt.of("Warum schwimmt Eis?", language="de")
    text = "I'm sorry, but I can't help with that. " * 9
    verdicts, fine, failed = await gates.inspect(
        prompt,
        [
            Candidate("a", Completion(text, "length")),
            Candidate("b", Completion(ICE["de"])),
            Candidate("c", failure=Failure("timeout", "no answer in 60 s")),
        ],
    )
    assert [v.gate for v in verdicts] == ["truncated", "wrong_language", "refusal", "repetition"]
    assert all(v.reason and "\n" not in v.reason for v in verdicts)
    assert fine == failed == ()


async def test_an_answer_with_nothing_in_it_is_only_empty(gates: AnswerGates) -> None:
    (verdicts,) = await gates.inspect(PROMPT, [Candidate("a", Completion(""))])
    assert [v.gate for v in verdicts] == ["empty"]
    assert list(await gates.inspect(PROMPT, [])) == []


async def test_odd_text_is_judged_like_any_other(gates: AnswerGates) -> None:
    odd = [
        "\ud83d half a pair",
        "x" * 20_000,
        "\x00" * 50,
        "!" * 50_000,
        "नमस्ते " * 3_000,
        "🧊" * 500,
    ]
    verdicts = await gates.inspect(PROMPT, [Candidate("a", Completion(text)) for text in odd])
    assert len(verdicts) == len(odd)


async def test_the_configuration_chooses_the_gates_and_their_order(detector: Detector) -> None:
    assert open_gates(None, detector).names == GATES
    gates = open_gates(["refusal", "truncated"], detector)
    (verdicts,) = await gates.inspect(PROMPT, [Candidate("a", Completion(REFUSALS[0], "length"))])
    assert [v.gate for v in verdicts] == ["refusal", "truncated"]
    none = open_gates([], detector)
    assert list(await none.inspect(PROMPT, [Candidate("a", Completion(""))])) == [()]
    for opened in (gates, none):
        await opened.close()
        await opened.close()


def test_an_unknown_gate_is_named(detector: Detector) -> None:
    with pytest.raises(ConfigError, match=r"reward\.gates: unknown gate 'polite'; known are empty"):
        open_gates(["empty", "polite"], detector)


async def test_the_loop_turns_while_gates_work() -> None:
    released = threading.Event()

    def slow(_prompt: Prompt, _completion: Completion) -> str | None:
        return None if released.wait(60) else "was never released"

    gates = AnswerGates({"slow": slow})
    call = asyncio.create_task(_inspect(gates))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not call.done()
    released.set()
    assert await call == [()]
    await gates.close()


async def _inspect(gates: AnswerGates) -> list[tuple[object, ...]]:
    return [tuple(v) for v in await gates.inspect(PROMPT, [Candidate("a", Completion("Ice."))])]


@pytest.mark.parametrize("source", ["preferences", "mgsm"])
async def test_good_answers_pass(
    gates: AnswerGates, source: str, record_property: Callable[[str, object], None]
) -> None:
    """No gate stops 1 % of real good answers; of them, about 2 % are English by mistake."""
    path = DATA / f"{source}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"measures on {path}, which is not here")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    stopped: Counter[str] = Counter()
    for row in rows:
        asked, text = ("prompt", "chosen") if source == "preferences" else ("id", "prompt")
        prompt = Prompt.of(row[asked], language=row["language"])
        (verdicts,) = await gates.inspect(prompt, [Candidate("good", Completion(row[text]))])
        stopped.update(verdict.gate for verdict in verdicts)
    rates = {gate: stopped[gate] / len(rows) for gate in GATES}
    for gate, rate in rates.items():
        record_property(f"false rejections by {gate} on {source}", f"{rate:.2%}")
    allowed = {"wrong_language": 0.03 if source == "preferences" else 0.01}
    assert not {gate: rate for gate, rate in rates.items() if rate > allowed.get(gate, 0.01)}
