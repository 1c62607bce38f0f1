"""The wrong-language gate: languages, scripts, and what a prompt asks for."""

from __future__ import annotations

import pytest
from corpus import questions

from arbitrage.types import Prompt
from reward.gates.wrong_language import WrongLanguage
from reward.language import Detector
from tests.gated import ICE, answer


def asked(language: str) -> Prompt:
    return Prompt.of("?", language=language)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


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


ROMANISED = {
    "ja": "Koori wa mizu yori mo mitsudo ga chiisai node, mizu no ue ni ukimasu.",
    "hi": "Barf paani par isliye tairti hai kyonki uska ghanatva paani se kam hota hai.",
    "ru": "Lyod plavayet na vode, potomu chto yego plotnost menshe plotnosti vody.",
    "ar": "yatfu aljalid ala almaa li'anna kathafatahu aqallu min kathafati almaa.",
    "th": "namkhaeng loi nam dai phro wa mi khwam nanaen noi kwa nam thi pen khong leo.",
    "ko": "eoreumeun mulboda mildoga natgi ttaemune mul wie tteumnida.",
}


@pytest.mark.parametrize("language", ROMANISED)
def test_a_language_in_letters_that_are_not_its_own_is_stopped(
    detector: Detector, language: str
) -> None:
    gate = WrongLanguage(detector)
    native = questions()[language][0]
    prompt = Prompt.of(native.prompt, language=language)
    assert gate(prompt, answer(ROMANISED[language]))
    assert not gate(prompt, answer(native.answer))


def test_a_prompt_in_foreign_letters_may_be_answered_in_them(detector: Detector) -> None:
    prompt = Prompt.of("barf paani par kyon tairti hai?", language="hi")
    reason = WrongLanguage(detector)(prompt, answer(ROMANISED["hi"]))
    assert reason is None or "letters" not in reason


def test_a_transliteration_that_is_asked_for_passes(detector: Detector) -> None:
    prompt = Prompt.of("「氷は水に浮きます」をローマ字で書いてください。", language="ja")
    assert not WrongLanguage(detector)(prompt, answer(ROMANISED["ja"]))


@pytest.mark.parametrize("language", ["sr", "sr-Latn"])
def test_a_language_of_two_scripts_may_be_answered_in_either(
    detector: Detector, language: str
) -> None:
    for asked_in in ("Зашто лед плута на води?", "Zašto led pluta na vodi?"):
        prompt = Prompt.of(asked_in, language=language)
        for written in ("sr", "sr-Latn"):
            assert not WrongLanguage(detector)(prompt, answer(ICE[written]))


@pytest.mark.parametrize(
    "text",
    [
        "Microsoft, Apple, Amazon, Google, Meta, Nvidia, Tesla, Netflix",
        "Steven Spielberg, George Lucas, Francis Ford Coppola",
        '{"name": "variables", "values": ["alpha", "beta", "gamma", "delta"]}',
        "def area(radius):\n    return 3.14 * radius ** 2\n\nprint(area(2))",
        "$$\\frac{\\partial f}{\\partial x} = \\lim_{h \\to 0} \\frac{f(x+h)-f(x)}{h}$$",
        "`pip install numpy pandas matplotlib scikit-learn`",
    ],
)
def test_names_code_and_formulas_are_in_no_language(detector: Detector, text: str) -> None:
    prompt = Prompt.of("氷はなぜ水に浮くのですか？例を挙げてください。", language="ja")
    assert not WrongLanguage(detector)(prompt, answer(text))


def test_japanese_full_of_latin_terms_is_japanese(detector: Detector) -> None:
    text = (
        "ReBasedはMQARタスクで、In-Context LearningとPerplexityの両方においてBased modelを"
        "上回り、Pile datasetで訓練した後もAssociative dependenciesをうまく扱えました。"
    )
    assert not WrongLanguage(detector)(asked("ja"), answer(text))
    assert WrongLanguage(detector)(asked("zh"), answer(text))


@pytest.mark.parametrize("language", questions())
def test_the_right_answer_in_any_other_language_is_stopped(
    detector: Detector, language: str
) -> None:
    gate = WrongLanguage(detector)
    native = questions()[language][0]
    prompt = Prompt.of(native.prompt, language=language)
    passed = [
        tag for tag, asked in questions().items() if not gate(prompt, answer(asked[0].answer))
    ]
    assert passed == [language]
