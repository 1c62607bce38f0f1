"""Measure how well the rules read final numbers in eleven languages.

Every gold answer of mgsm.jsonl.gz (250 school problems in each language) is put into sentences as
people and models write them: with a mark or without, numbers on the way before it, explanations
behind it, in native digits, grouped as the language does. All of these are right. The same
sentences with another number at their end are wrong. A language a line: how many right ones score
1, how many wrong ones score 0, and microseconds of processor time an answer.

    python benchmarks/rules.py          # a minute or two
    python benchmarks/rules.py --missed # shows what was scored wrongly
"""

import argparse
import gzip
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reward.rules import is_answer

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
Written = Callable[[int], str]

# {a} {b} are numbers on the way, {g} is the final one
TEMPLATES: Mapping[str, Sequence[str]] = {
    "bn": (
        "প্রথমে {a} থেকে {b} বাদ দিলে পাই {g}। সুতরাং উত্তর হল {g}।",
        "ধাপ ১: মোট {a}টি ছিল।\nধাপ ২: {b}টি খরচ হয়েছে।\n\n**উত্তর:** {g} টাকা",
        "তিনি প্রতিদিন {g} ডলার উপার্জন করেন। উত্তর: ${g}",
        "উত্তরটি হলো {g} টি, কারণ {a} - {b} = {g} এবং বাকি {b}টি বিক্রি হয়নি।",
        "শুরুতে {a}টি ডিম ছিল, {b}টি খাওয়া হয়েছে, তাই অবশিষ্ট আছে **{g}টি** ডিম।",
        "{a} − {b} = {g}\nঅতএব তাঁর মোট আয় ৳{g}।",
        "মোট খরচ {a} টাকা এবং লাভ {b} টাকা। তাই হিসাব করে পাওয়া যায় $\\boxed{{{g}}}$।",
        "সঠিক উত্তর {g} ঘণ্টা। ব্যাখ্যা: {a} ঘণ্টা থেকে {b} ঘণ্টা বিয়োগ করা হয়েছে।",
    ),
    "de": (
        "Zuerst rechnen wir {a} − {b} = {g}. Die Antwort lautet also {g}.",
        "Schritt 1: Es sind {a} Eier.\nSchritt 2: Davon gehen {b} weg.\n\n**Antwort:** {g} €",
        "Die richtige Antwort ist {g} Euro. Denn von {a} Euro werden {b} Euro abgezogen.",
        "Sie hatte {a} Stück, {b} davon hat sie verschenkt, also bleiben **{g} Stück** übrig.",
        "Antwort: Sie verdient jeden Tag {g} US-Dollar.",
        "{a} - {b} = {g}\nInsgesamt nimmt Janet damit am Tag ${g} ein.",
        "Aus {a} und {b} ergibt sich $\\boxed{{{g}\\text{{ km}}}}$, weil {b} wegfallen.",
        "Er braucht {a} Minuten für den Hinweg und {b} für den Rückweg.\n#### {g}",
    ),
    "en": (
        "First, {a} - {b} = {g}. The answer is {g}.",
        "Step 1: There are {a} eggs.\nStep 2: She eats {b} of them.\n\n**Final answer:** ${g}",
        "The correct answer is ${g} per day, because {a} minus {b} leaves that, and {b} are spare.",
        "She starts with {a} and gives away {b}, so she is left with **{g} dollars** a day.",
        "She has {a} eggs and sells {b}.\nAnswer: Janet makes {g} dollars every day.",
        "{a} - {b} = {g}\nSo in total, Janet makes ${g} every day at the market.",
        "With {a} and {b} we get $\\boxed{{\\${g}}}$ (that is {a} less {b}).",
        "He drives {a} miles there and {b} miles back.\n#### {g}",
    ),
    "es": (
        "Primero, {a} − {b} = {g}. La respuesta es {g}.",
        "Paso 1: Hay {a} huevos.\nPaso 2: Se come {b}.\n\n**Respuesta:** {g} €",
        "La respuesta correcta es ${g} al día, porque a {a} se le restan {b}.",
        "Tenía {a} y regaló {b}, así que le quedan **{g} dólares**.",
        "De {a} se venden {b}.\nRespuesta: Janet gana {g} dólares todos los días.",
        "{a} - {b} = {g}\nPor lo tanto, en total gana {g} pesos.",
        "Con {a} y {b} obtenemos $\\boxed{{{g}}}$, ya que {b} se descuentan.",
        "La respuesta final es: {g} horas. Explicación: {a} horas menos {b} horas.",
    ),
    "fr": (
        "D'abord, {a} − {b} = {g}. La réponse est {g}.",
        "Étape 1 : il y a {a} œufs.\nÉtape 2 : elle en mange {b}.\n\n**Réponse :** {g} €",
        "La réponse finale est donc {g} dollars, car on retire {b} de {a}.",
        "Elle avait {a} pièces et en a donné {b} ; il lui reste **{g} pièces**.",
        "Elle part de {a} et enlève {b}.\nRéponse : elle gagne {g} dollars par jour.",
        "{a} - {b} = {g}\nAu total, elle gagne donc {g} $ par jour.",
        "Avec {a} et {b}, on obtient $\\boxed{{{g}}}$ puisque {b} sont perdus.",
        "La réponse est : {g} heures. En effet, {a} heures moins {b} heures.",
    ),
    "ja": (
        "まず {a} − {b} = {g} です。したがって、答えは{g}です。",
        "ステップ1：卵は{a}個あります。\nステップ2：{b}個を食べます。\n\n**答え：{g}ドル**",
        "答えは{g}円です。なぜなら{a}円から{b}円を引くからです。",
        "最初は{a}個あり、そのうち{b}個をあげたので、残りは**{g}個**です。",
        "{a}個から{b}個を引きます。\n答え：彼女は毎日{g}ドルを手に入れます。",
        "{a} - {b} = {g}\nよって、彼女は毎日市場で${g}を得ています。",
        "{a}と{b}から $\\boxed{{{g}}}$ となります（{b}は使いません）。",
        "正解は、{g}時間です。説明：{a}時間のうち{b}時間は休みです。",
    ),
    "ru": (
        "Сначала {a} − {b} = {g}. Ответ: {g}.",
        "Шаг 1: всего {a} яиц.\nШаг 2: она съедает {b}.\n\n**Ответ:** {g} ₽",
        "Правильный ответ — {g} долларов, потому что из {a} вычли {b}.",
        "У неё было {a} штук, {b} она отдала, значит осталось **{g} штук**.",
        "Из {a} вычитаем {b}.\nОтвет: она зарабатывает {g} долларов в день.",
        "{a} - {b} = {g}\nИтого Дженет зарабатывает {g} $ в день.",
        "Из {a} и {b} получаем $\\boxed{{{g}}}$, так как {b} лишние.",
        "Ответ {g} часов. Пояснение: от {a} часов отняли {b} часов.",
    ),
    "sw": (
        "Kwanza, {a} - {b} = {g}. Kwa hivyo jibu ni {g}.",
        "Hatua ya 1: Kuna mayai {a}.\nHatua ya 2: Anakula {b}.\n\n**Jibu:** dola {g}",
        "Jibu sahihi ni dola {g} kwa siku, kwa sababu tunatoa {b} kutoka {a}.",
        "Alikuwa na {a}, akatoa {b}, kwa hiyo amebaki na **dola {g}**.",
        "Tunatoa {b} kutoka {a}.\nJibu: Janet hutengeneza dola {g} kila siku.",
        "{a} - {b} = {g}\nKwa jumla anapata shilingi {g}.",
        "Kutokana na {a} na {b} tunapata $\\boxed{{{g}}}$ kwa sababu {b} zimetolewa.",
        "Jibu la mwisho ni: saa {g}. Maelezo: saa {a} ukitoa saa {b}.",
    ),
    "te": (
        "మొదట {a} - {b} = {g}. కాబట్టి సమాధానం {g}.",
        "దశ 1: మొత్తం {a} గుడ్లు ఉన్నాయి.\nదశ 2: ఆమె {b} తింటుంది.\n\n**సమాధానం:** {g} డాలర్లు",
        "సరైన సమాధానం: ${g}, ఎందుకంటే {a} నుండి {b} తీసివేయాలి.",
        "ఆమె వద్ద {a} ఉన్నాయి, {b} ఇచ్చింది, అందువల్ల మిగిలినవి **{g} గుడ్లు**.",
        "{a} నుండి {b} తీసివేయండి.\nజవాబు: ఆమె ప్రతిరోజూ {g} డాలర్లు సంపాదిస్తుంది.",
        "{a} - {b} = {g}\nకాబట్టి ఆమె ప్రతిరోజూ ₹{g} సంపాదిస్తుంది.",
        "{a} మరియు {b} నుండి $\\boxed{{{g}}}$ వస్తుంది, ఎందుకంటే {b} ఖర్చయ్యాయి.",
        "జవాబు {g} గంటలు. వివరణ: {a} గంటల నుండి {b} గంటలు తీసివేశాము.",
    ),
    "th": (
        "ก่อนอื่น {a} - {b} = {g} ดังนั้นคำตอบคือ {g}",
        "ขั้นตอนที่ 1: มีไข่ {a} ฟอง\nขั้นตอนที่ 2: กินไป {b} ฟอง\n\n**คำตอบ:** {g} บาท",
        "คำตอบที่ถูกต้องคือ {g} ดอลลาร์ เพราะ {a} ลบด้วย {b}",
        "เดิมมี {a} ชิ้น ให้ไป {b} ชิ้น จึงเหลือ **{g} ชิ้น**",
        "นำ {a} ลบ {b}\nตอบ {g} ดอลลาร์ต่อวัน",
        "{a} - {b} = {g}\nเธอจึงมีรายได้วันละ{g}ดอลลาร์",
        "จาก {a} และ {b} จะได้ $\\boxed{{{g}}}$ เพราะหักออก {b}",
        "คำตอบ: เธอมีรายได้ {g} ดอลลาร์",
    ),
    "zh": (
        "首先，{a} − {b} = {g}。因此，答案是{g}。",
        "第一步：共有{a}个鸡蛋。\n第二步：她吃了{b}个。\n\n**答案：** {g} 元",
        "正确答案为{g}美元，因为要从{a}中减去{b}。",
        "原来有{a}个，送出{b}个，所以还剩**{g}个**。",
        "用{a}减去{b}。\n答：她每天赚{g}美元。",
        "{a} - {b} = {g}\n所以她每天在农贸市场一共赚${g}。",
        "由{a}和{b}可得 $\\boxed{{{g}}}$，因为减去了{b}。",
        "最终答案是：{g}小时。解释：{a}小时减去{b}小时。",
    ),
}
NATIVE_ZERO = {"bn": "০", "te": "౦", "th": "๐"}
SEPARATORS: Mapping[str, Sequence[str]] = {
    "de": (".", "\u202f"),
    "es": (".", "\u00a0"),
    "fr": ("\u202f", "\u00a0", " "),
    "ru": ("\u00a0", " "),
}


@dataclass
class Tally:
    """What was scored in one language."""

    right: int = 0
    right_scored_1: int = 0
    wrong: int = 0
    wrong_scored_0: int = 0
    seconds: float = 0.0
    missed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def flawless(self) -> bool:
        """Whether every right answer scored 1, and every wrong one 0."""
        return self.right_scored_1 == self.right and self.wrong_scored_0 == self.wrong


def golds(path: Path = DATA / "mgsm.jsonl.gz") -> Mapping[str, Sequence[int]]:
    """The gold answers by language."""
    found: dict[str, list[int]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            found[row["language"]].append(int(row["answer"]))
    return found


def spellings(language: str) -> Sequence[Written]:
    """How numbers are written in a language: plain, grouped, in its own digits."""
    written: list[Written] = [str]
    if language in {"bn", "te"}:
        written.append(_lakhs)
    written += map(_grouped_by, SEPARATORS.get(language, ","))
    if language in {"ja", "zh"}:
        written += [_full_width, _myriads]
    if language in NATIVE_ZERO:
        written += [_in_digits(NATIVE_ZERO[language], spelling) for spelling in tuple(written)]
    return written


def wrong_finals(gold: int, on_the_way: int) -> Iterator[int]:
    """Numbers that are not the answer: off by one, by ten times, with digits swapped; another."""
    yield gold + 1
    yield gold - 1
    yield gold * 10
    swapped = int(str(gold)[::-1]) if str(gold)[-1] != "0" else gold
    if swapped != gold:
        yield swapped
    yield on_the_way


def measure(language: str, answers: Sequence[int], *, every_spelling: bool = True) -> Tally:
    """Scores every gold answer in every sentence.

    Args:
        every_spelling: whether each is written in every way, or in one after the other.
    """
    tally = Tally()
    written = spellings(language)
    for number, gold in enumerate(answers):
        for index, template in enumerate(TEMPLATES[language]):
            chosen = written if every_spelling else [written[(number + index) % len(written)]]
            for spelling in chosen:
                _count(tally, language, template, gold, spelling)
    return tally


def _count(tally: Tally, language: str, template: str, gold: int, spelling: Written) -> None:
    others = (gold + 13, 13)  # their difference is the gold answer
    for final in (gold, *wrong_finals(gold, others[0])):
        right = final == gold
        # an answer that ends up with another number has the gold one on its way
        on_the_way = others if right else (gold, others[1])
        text = template.format(
            a=spelling(on_the_way[0]), b=spelling(on_the_way[1]), g=spelling(final)
        )
        started = time.thread_time()
        scored = is_answer(str(gold), text, language)
        tally.seconds += time.thread_time() - started
        tally.right += right
        tally.wrong += not right
        tally.right_scored_1 += right and scored
        tally.wrong_scored_0 += not right and not scored
        if scored != right:
            tally.missed.append((str(gold), text))


def _grouped_by(separator: str) -> Written:
    return lambda number: f"{number:,}".replace(",", separator)


def _lakhs(number: int) -> str:
    head, tail = divmod(number, 1000)
    if not head:
        return str(number)
    pairs = []
    while head:
        head, pair = divmod(head, 100)
        pairs.append(f"{pair:02d}" if head else str(pair))
    return ",".join([*reversed(pairs), f"{tail:03d}"])


def _full_width(number: int) -> str:
    return _in_digits("０", str)(number)


def _myriads(number: int) -> str:
    head, tail = divmod(number, 10_000)
    return f"{head}万{tail or ''}" if head else str(number)


def _in_digits(zero: str, spelling: Written) -> Written:
    digits = {ord("0") + value: chr(ord(zero) + value) for value in range(10)}
    return lambda number: spelling(number).translate(digits)


def main() -> None:
    """Parses the arguments and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--missed", action="store_true", help="show what was scored wrongly")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(f"{DATA} is not here: nothing to measure on")
        return
    total = Tally()
    print("language | right scored 1 | wrong scored 0 | microseconds an answer")
    for language, answers in golds().items():
        tally = measure(language, answers)
        print(_row(language, tally))
        for gold, text in tally.missed if arguments.missed else ():
            print(f"    {gold}: {' '.join(text.split())}")
        for name in ("right", "right_scored_1", "wrong", "wrong_scored_0", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    print(_row("all", total))


def _row(name: str, tally: Tally) -> str:
    right = f"{tally.right_scored_1} of {tally.right}"
    wrong = f"{tally.wrong_scored_0} of {tally.wrong}"
    microseconds = tally.seconds / (tally.right + tally.wrong) * 1e6
    return f"{name} | {right} | {wrong} | {microseconds:.0f}"


if __name__ == "__main__":
    main()
