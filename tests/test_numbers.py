from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.rules import numbers
from reward.rules.final_answer import final_number
from reward.rules.number_words import han_number
from reward.rules.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Callable

ZEROS = {
    "ar": "٠",
    "fa": "۰",
    "hi": "०",
    "bn": "০",
    "te": "౦",
    "ta": "௦",
    "th": "๐",
    "my": "၀",
    "km": "០",
    "zh": "０",
}
HUGE = 100_000


def value(text: str, language: str = "en") -> Fraction | None:
    number = final_number(text, language)
    return number.readings[0] if number and number.readings else None


def in_digits(zero: str, text: str) -> str:
    return text.translate({ord("0") + d: chr(ord(zero) + d) for d in range(10)})


@pytest.mark.parametrize(("language", "zero"), ZEROS.items())
@pytest.mark.parametrize("written", ["7", "42", "1,234", "1,234.5", "-18", "3/4"])
def test_digits_of_every_script_are_read_as_ours_are(
    language: str, zero: str, written: str
) -> None:
    assert value(in_digits(zero, written), language) == value(written)


@pytest.mark.parametrize(
    ("language", "written", "expected"),
    [
        ("en", "1,234", 1234),
        ("en", "1,234,567.89", Fraction(123456789, 100)),
        ("en", "1.234", Fraction(1234, 1000)),
        ("de", "1.234", 1234),
        ("de", "1.234.567,89", Fraction(123456789, 100)),
        ("de", "0,5", Fraction(1, 2)),
        ("de", "0,500", Fraction(1, 2)),
        ("de-Latn", "12.500 €", 12500),
        ("fr", "1 234 567,89", Fraction(123456789, 100)),
        ("fr", "57\u202f500 €", 57500),
        ("fr", "57\u00a0500", 57500),
        ("en", "57\u2009500", 57500),
        ("de", "57'500.25", Fraction(5750025, 100)),
        ("de", "57’500", 57500),
        ("hi", "1,00,000", 100000),
        ("bn", "১২,৩৪,৫৬৭.৫", Fraction(12345675, 10)),
        ("ar", "١٬٢٣٤٫٥", Fraction(12345, 10)),
        ("ar", "\u200f٤٢\u200f", 42),
        ("zh", "１，２３４．５", Fraction(12345, 10)),
        ("ja", "11万4200", 114200),
        ("ja", "1万2千", 12000),
        ("zh", "3.5万", 35000),
        ("zh", "三十六", 36),
        ("zh", "两千", 2000),
        ("zh", "百分之二十五", 25),
        ("zh", "3千克", 3),
        ("ko", "1만 2천 원", 12000),
        ("en", "half is ½", Fraction(1, 2)),
        ("en", "2½", Fraction(5, 2)),
        ("en", "2 1/2", Fraction(5, 2)),
        ("en", r"$\frac{3}{4}$", Fraction(3, 4)),
        ("en", r"1{,}234", 1234),
        ("en", "1.5e3", 1500),
        ("en", "1.5 × 10^3", 1500),
        ("de", "1,5·10⁻³", Fraction(15, 10000)),
        ("en", ".5", Fraction(1, 2)),
        ("en", "5²", 25),
        ("en", "18 m²", 18),
        ("en", "−18", -18),
        ("en", "-$18", -18),
        ("en", "$-18", -18),
        ("en", "it is –18 °C", -18),
        ("en", "x = - 18", -18),
        ("en", "minus 18", -18),
        ("ja", "マイナス18", -18),
        ("en", "5 - 3", 3),
        ("en", "- 18 eggs", 18),
        ("en", "3 million", 3_000_000),
        ("en", "3 billion", 3_000_000_000),
        ("de", "3 Billionen", 3 * 10**12),
        ("es", "3 mil millones", 3 * 10**9),
        ("es", "57 mil", 57000),
        ("ru", "57,5 тыс.", 57500),
        ("bn", "১.৫ লাখ", 150000),
        ("te", "2 లక్షల", 200000),
        ("hi", "2 करोड़", 20_000_000),
        ("th", "5 หมื่น", 50000),
        ("sw", "elfu 57", 57000),
        ("en", "$57.5k", 57500),
        ("en", "12 keys", 12),
        ("en", "Rs.1,00,000", 100000),
        ("en", "18 kg of CO2", 18),
        ("en", "18 eggs on 2024-05-01 at 9:30", 18),
        ("ja", "18個（2024年5月1日）", 18),
        ("zh", "赚18美元，我们一起努力", 18),
        ("de", "zwölf Eier", 12),
        ("ru", "двенадцать", 12),
    ],
)
def test_numbers_are_read_as_they_are_written(
    language: str, written: str, expected: int | Fraction
) -> None:
    assert value(written, language) == expected


def test_a_comma_may_be_the_english_one_where_the_decimal_comma_is_at_home() -> None:
    number = final_number("57,500", "de")
    assert number
    assert number.readings == (Fraction(575, 10), Fraction(57500))


def test_in_an_unknown_language_both_readings_count() -> None:
    number = final_number("1.234", "und")
    assert number
    assert set(number.readings) == {Fraction(1234), Fraction(1234, 1000)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 7. Wait. The answer is 8, as 4 + 4 = 8 and 3 are left.", 8),
        ("The answer is 7.\n#### 9", 9),
        (r"\boxed{7} is wrong; \boxed{x = 10}. The answer is 7.", 10),
        ("<answer>11</answer> out of 20", 11),
        ("The answer is not 7. It is 12.", 12),
        ("Answer: She has 16 eggs. She eats 3. So 13 are left.", 13),
        ("Answer:\n\n**14** eggs, for 16 - 2 = 14", 14),
        ("She has 5 + 10 = 15 eggs", 15),
        ("16 = 4 × 4", 16),
        ("**Step 3**\nShe sells **17 eggs** for 2 dollars", 17),
        ("#### 3. Result\nSo 18 remain", 18),
        ("To answer this, the first step is 5 eggs, and 19 in the end", 19),
        ("It was unanswered: 3. We get 20", 20),
        (r"Thus \[ 7 \times 3 = 21 \]", 21),
    ],
)
def test_the_final_number_decides(text: str, expected: int) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("bn", "ধাপে ধাপে উত্তর: রজারের প্রথমে 5টি বল ছিল। 5 + 6 = 11। উত্তর হল 11।"),
        (
            "de",
            "Schritt-für-Schritt-Antwort: Er hatte 5 Bälle. 5 + 6 = 11. Die Antwort ist 11.",
        ),
        ("en", "Step-by-Step Answer: Roger started with 5 balls. 5 + 6 = 11. The answer is 11."),
        ("es", "Respuesta paso a paso: Roger empieza con 5 bolas. 5 + 6 = 11. La respuesta es 11."),
        ("fr", "Réponse étape par étape : Roger avait 5 balles. 5 + 6 = 11. La réponse est 11."),
        (
            "ja",
            "ステップごとの答え：最初に5個のボールがありました。5 + 6 = 11。答えは11です。",
        ),
        ("ru", "Пошаговое решение: у Роджера было 5 мячей. 5 + 6 = 11. Ответ — 11."),
        ("sw", "Jibu la Hatua kwa Hatua: Roger alianza na mipira 5. 5 + 6 = 11. Jibu ni 11."),
        ("te", "దశలవారీగా సమాధానం: రోజర్ 5 బంతులతో ప్రారంభించాడు. 5 + 6 = 11. సమాధానం 11."),
        ("th", "คำตอบทีละขั้นตอน: โรเจอร์มีลูกบอล 5 ลูกในตอนแรก 5 + 6 = 11 คำตอบคือ 11"),
        ("zh", "逐步解答：罗杰一开始有 5 个球。5 + 6 = 11。答案是 11。"),
        ("ar", "الإجابة هي ١١ كرة لأن ٥ + ٦ = ١١."),
        ("hi", "इसलिए उत्तर ११ है क्योंकि ५ + ६ = ११।"),
        ("ko", "따라서 정답은 11개입니다. (5 + 6)"),
    ],
)
def test_a_heading_that_names_the_answer_is_not_yet_the_answer(language: str, text: str) -> None:
    assert value(text, language) == 11


@pytest.mark.parametrize(
    "text", ["", "no idea", r"\boxed{17, 18}", "1" * 5000, "2024-05-01", "...", "**", "CO₂"]
)
def test_where_there_is_no_final_number_there_is_none(text: str) -> None:
    assert value(text) is None


@pytest.mark.parametrize(
    ("expected", "answer", "agrees"),
    [
        ("18", "18.00", True),
        ("18", "18.01", False),
        ("3.14", "3.14159", True),
        ("3.14", "3.1", False),
        ("3.5", "3.52", False),
        ("2/3", "4/6", True),
        ("0.25", "25%", True),
        ("0.25", "0.25%", False),
        ("25%", "25", True),
        ("25%", "0.25", True),
        ("25%", "0.25%", False),
        ("25", "25%", True),
        ("1,234.5", "1234.5", True),
        ("-3", "3", False),
        ("1000000", "1e6", True),
    ],
)
def test_numbers_agree_exactly_or_once_rounded(expected: str, answer: str, agrees: bool) -> None:
    wanted, found = numbers.parse(expected), numbers.parse(answer)
    assert wanted
    assert found
    assert numbers.agree(wanted, found) is agrees


def test_what_is_written_as_expected_agrees_whatever_the_language_makes_of_it() -> None:
    wanted, found = numbers.parse("3.125"), final_number("3.125", "de")
    assert wanted
    assert found
    assert numbers.agree(wanted, found)


@pytest.mark.parametrize("text", ["3 apples", "Apollo 11", "2024-05-01", "1, 2", "9:30", "", "x"])
def test_a_text_that_is_more_than_a_number_is_none(text: str) -> None:
    assert numbers.parse(text) is None


def lakhs(number: int) -> str:
    head, tail = divmod(number, 1000)
    if not head:
        return str(number)
    pairs: list[str] = []
    while head >= 100:
        head, pair = divmod(head, 100)
        pairs.insert(0, f"{pair:02d}")
    return ",".join([str(head), *pairs, f"{tail:03d}"])


SPELLINGS: dict[str, Callable[[int], str]] = {
    "de": lambda n: f"{n:,}".replace(",", "."),
    "en": lambda n: f"{n:,}",
    "fr": lambda n: f"{n:,}".replace(",", "\u202f"),
    "ru": lambda n: f"{n:,}".replace(",", " "),
    "hi": lambda n: in_digits("०", lakhs(n)),
    "ar": lambda n: in_digits("٠", f"{n:,}".replace(",", "٬")),
    "th": lambda n: in_digits("๐", f"{n:,}"),
}


@settings(deadline=None)
@given(st.integers(0, 10**15), st.sampled_from(sorted(SPELLINGS)), st.sampled_from(["", "-"]))
def test_an_integer_comes_back_however_it_was_grouped(n: int, language: str, sign: str) -> None:
    assert value(sign + SPELLINGS[language](n), language) == (-n if sign else n)


@settings(deadline=None)
@given(st.decimals(0, 10**6, places=2), st.sampled_from(["de", "en", "es", "ja"]))
def test_a_decimal_comes_back(n: object, language: str) -> None:
    written = f"{n:,}"
    if language in {"de", "es"}:
        written = written.translate({ord(","): ".", ord("."): ","})
    assert value(f"= {written}.", language) == Fraction(str(n))


@settings(deadline=None)
@given(st.integers(1, 9_999_9999))
def test_han_numerals_come_back(n: int) -> None:
    assert han_number(to_han(n)) == n


def to_han(n: int) -> str:
    digits, units = "零一二三四五六七八九", ["", "十", "百", "千"]
    if n >= 10_000:
        rest = n % 10_000
        return (
            to_han(n // 10_000)
            + "万"
            + (("零" if rest < 1000 else "") + to_han(rest) if rest else "")
        )
    text, gap = "", False
    for power in (3, 2, 1, 0):
        digit = n // 10**power % 10
        gap = gap or (bool(text) and not digit)
        if digit:
            text += ("零" if gap and text else "") + digits[digit] + units[power]
            gap = False
    return text


@settings(deadline=None)
@given(st.text(max_size=200), st.sampled_from(["en", "de", "zh", "sw", "und"]))
def test_any_text_is_read_without_an_error(text: str, language: str) -> None:
    found = final_number(text, language)
    for number in (found, numbers.parse(text, language)):
        assert number is None or all(isinstance(value, Fraction) for value in number.readings)


@settings(deadline=None)
@given(st.text("0123456789.,' -%/^ekK²½٫٬\u00a0万十千百三:=*(){}\\", max_size=60))
def test_any_row_of_digits_and_signs_is_read_without_an_error(text: str) -> None:
    for language in ("de", "zh"):
        found = final_number(text, language)
        assert found is None or all(isinstance(value, Fraction) for value in found.readings)


@settings(deadline=None)
@given(st.text())
def test_plain_text_stays_as_it_is(text: str) -> None:
    once = plain(text)
    if "\\" not in once and "{" not in once:
        assert plain(once) == once


UNITS = (
    *("1", "1 ", "1,", "1.", "1 234", " 234", "1/", "1:11 ", "1=", "1e9", "10^9", "10²", "-", "=-"),
    *("answer ", "answer is ", "Answer: x 5\n", "Answer\n", "ответ - ", "答", "답", "<answer>"),
    *(
        "\\boxed{",
        "{",
        "\\frac{1}{",
        "\\text{",
        "#### ",
        "#### 5 a b c d e\n",
        "**",
        "**1",
        "**1**",
    ),
    *("一二三", "1万", "百分之", "\n", "\t", "১২৩,", "5 mil ", "½", "1,000", "minus ", "1-1-"),
)


@pytest.mark.parametrize("unit", UNITS)
def test_a_hundred_thousand_characters_of_anything_are_read(unit: str) -> None:
    text = unit * (HUGE // len(unit))
    final_number(text, "fr")
    final_number(text + " x", "en")
