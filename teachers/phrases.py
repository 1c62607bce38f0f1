"""Canned sentences by language, and which of them suit a text.

Enough for the scripted teacher to answer in the language it is asked in; no
language detector. For each language: common words that tell it apart, a
sentence with a place for a number, and sentences to go on with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Phrases:
    """What can be said in one language; `{n}` in `opening` takes a number."""

    common: str
    opening: str
    others: tuple[str, ...]


FALLBACK = "en"
"""The language of an answer to a text that resembles none of the table."""
_READ = 4_000  # characters of a text that are looked at

PHRASES: Mapping[str, Phrases] = {
    "en": Phrases(
        "what why how when where who does do is are the of and to in it people someone says",
        "There are {n} good reasons for this, and most people know a few of them.",
        (
            "It depends on the weather and on the place where you live.",
            "Our grandparents already told the same story to their children.",
            "You can try it at home with things that you find in every kitchen.",
            "Whoever looks closely will soon understand how it works.",
        ),
    ),
    "de": Phrases(
        "was warum wie wann wo wer wozu ist der die das und ein eine nicht man im zum wenn",
        "Dafür gibt es {n} gute Gründe, und einige davon kennen fast alle Menschen.",
        (
            "Es hängt vom Wetter ab und davon, wo man wohnt.",
            "Schon unsere Großeltern haben ihren Kindern diese Geschichte erzählt.",
            "Das kann man zu Hause mit Dingen aus der Küche ausprobieren.",
            "Wer genau hinschaut, versteht schnell, wie es funktioniert.",
        ),
    ),
    "es": Phrases(
        "qué por para cómo cuándo dónde quién es el los las una del que en la gente algo",
        "Hay {n} buenas razones para ello, y casi toda la gente conoce algunas.",
        (
            "Depende del tiempo que hace y del lugar donde vives.",
            "Nuestros abuelos ya contaban la misma historia a sus hijos.",
            "Puedes probarlo en casa con cosas que hay en cualquier cocina.",
            "Quien mira con atención entiende pronto cómo funciona.",
        ),
    ),
    "fr": Phrases(
        "que quoi pourquoi comment quand où qui est le les des une du dans il fait à au l d",
        "Il y a {n} bonnes raisons à cela, et presque tout le monde en connaît quelques-unes.",
        (
            "Cela dépend du temps qu’il fait et de l’endroit où l’on habite.",
            "Nos grands-parents racontaient déjà la même histoire à leurs enfants.",
            "On peut essayer chez soi avec des choses que l’on trouve dans la cuisine.",
            "Celui qui regarde de près comprend vite comment cela fonctionne.",
        ),
    ),
    "pt": Phrases(
        "o que por como quando onde quem é os as um uma do da no na não uma pessoa faz às",
        "Há {n} boas razões para isso, e quase todas as pessoas conhecem algumas.",
        (
            "Depende do tempo que faz e do lugar onde você mora.",
            "Os nossos avós já contavam a mesma história aos seus filhos.",
            "Você pode experimentar em casa com coisas que há na cozinha.",
            "Quem olha com atenção logo entende como funciona.",
        ),
    ),
    "it": Phrases(
        "che cosa perché come quando dove chi è il lo gli una del della di si nella a un in",
        "Ci sono {n} buone ragioni per questo, e quasi tutti ne conoscono alcune.",
        (
            "Dipende dal tempo che fa e dal luogo in cui si vive.",
            "I nostri nonni raccontavano già la stessa storia ai loro figli.",
            "Si può provare a casa con le cose che ci sono in cucina.",
            "Chi guarda con attenzione capisce presto come funziona.",
        ),
    ),
    "ru": Phrases(
        "что почему зачем как когда где кто для чего в на и не чем какой ы э ё ъ",
        "Для этого есть {n} веских причин, и некоторые из них известны почти всем.",
        (
            "Это зависит от погоды и от места, где вы живёте.",
            "Ещё наши бабушки рассказывали эту историю своим детям.",
            "Это можно попробовать дома с вещами, которые есть на кухне.",
            "Кто смотрит внимательно, тот быстро понимает, как это работает.",
        ),
    ),
    "uk": Phrases(
        "що чому навіщо як коли де хто для чого в на і не який які про і ї є ґ",
        "Для цього є {n} вагомих причин, і деякі з них відомі майже всім.",
        (
            "Це залежить від погоди та від місця, де ви живете.",
            "Ще наші бабусі розповідали цю історію своїм дітям.",
            "Це можна спробувати вдома з речами, які є на кухні.",
            "Хто дивиться уважно, той швидко розуміє, як це працює.",
        ),
    ),
    "ja": Phrases(
        "何 どうして どうやって いつ どこ の は が を に で と か ます ですか も お",
        "それには{n}個のよい理由があり、いくつかは多くの人が知っています。",
        (
            "天気や住んでいる場所によって変わります。",
            "おじいさんやおばあさんも、子どもたちに同じ話をしていました。",
            "台所にあるものを使って、家で試すことができます。",
            "よく見れば、どのような仕組みかすぐに分かります。",
        ),
    ),
    "zh": Phrases(
        "什么 为什么 怎么 什么时候 哪里 谁 的 是 了 在 和 们 么 这 里 吗 呢 着 过 会",
        "这件事有{n}个很好的理由，大多数人都知道其中几个。",
        (
            "这要看天气怎么样，也要看你住在什么地方。",
            "我们的爷爷奶奶早就给孩子们讲过同样的故事。",
            "你可以在家里用厨房里的东西试一试。",
            "仔细看的人很快就会明白它是怎么回事。",
        ),
    ),
    "ko": Phrases(
        "무엇 왜 어떻게 언제 어디 누구 을 를 은 는 이 가 에 의 나 요 까 다 하 고",
        "여기에는 {n}가지 좋은 이유가 있고, 몇 가지는 많은 사람이 알고 있습니다.",
        (
            "날씨와 사는 곳에 따라 달라집니다.",
            "할머니와 할아버지도 아이들에게 같은 이야기를 들려주셨습니다.",
            "부엌에 있는 물건으로 집에서 직접 해 볼 수 있습니다.",
            "자세히 보면 어떻게 되는지 금방 알 수 있습니다.",
        ),
    ),
    "ar": Phrases(
        "ما ماذا لماذا كيف متى أين من هل في على إلى الناس كل ة ي ك",
        "هناك {n} من الأسباب الجيدة لذلك، ويعرف معظم الناس بعضها.",
        (
            "الأمر يتعلق بالطقس وبالمكان الذي تعيش فيه.",
            "كان أجدادنا يروون القصة نفسها لأطفالهم.",
            "يمكنك أن تجرب ذلك في البيت بأشياء موجودة في كل مطبخ.",
            "من ينظر جيدا يفهم بسرعة كيف يحدث ذلك.",
        ),
    ),
    "hi": Phrases(
        "क्या क्यों कैसे कब कहाँ कौन है हैं का की के में से को और लोग",
        "इसके {n} अच्छे कारण हैं, और उनमें से कुछ लगभग सब लोग जानते हैं।",
        (
            "यह मौसम पर और आपके रहने की जगह पर निर्भर करता है।",
            "हमारे दादा-दादी भी अपने बच्चों को यही कहानी सुनाते थे।",
            "आप इसे घर पर रसोई की चीज़ों से आज़मा सकते हैं।",
            "जो ध्यान से देखता है, वह जल्दी समझ जाता है कि यह कैसे होता है।",
        ),
    ),
    "th": Phrases(
        "อะไร ทำไม อย่างไร เมื่อไร ที่ไหน ใคร ใน ที่ และ คน ไทย",
        "เรื่องนี้มีเหตุผลที่ดี {n} ข้อ และคนส่วนใหญ่รู้จักบางข้อ",
        (
            "ขึ้นอยู่กับอากาศและสถานที่ที่คุณอาศัยอยู่",
            "ปู่ย่าตายายของเราก็เคยเล่าเรื่องเดียวกันนี้ให้ลูกหลานฟัง",
            "คุณลองทำที่บ้านได้ด้วยของที่มีอยู่ในครัว",
            "ใครที่มองอย่างตั้งใจจะเข้าใจได้เร็วว่ามันเป็นอย่างไร",
        ),
    ),
}


def language_of(text: str) -> str:
    """The language of the table that shares most words and letters with a text.

    >>> [language_of(t) for t in ("Warum ist das so?", "¿Por qué?", "なぜですか", "12 + 30")]
    ['de', 'es', 'ja', 'en']
    """
    return _language_of(text[:_READ])


@lru_cache(maxsize=4096)
def _language_of(text: str) -> str:
    marks = _marks(text)
    # of equals, max takes the first: English
    return max(PHRASES, key=lambda tag: len(marks & _MARKS_OF[tag]))


def _marks(text: str) -> set[str]:
    """Words, and the letters beyond ASCII: where words are not spaced, letters must do."""
    text = text.lower()
    return {*re.findall(r"\w+", text), *(c for c in text if not c.isascii() and not c.isspace())}


_MARKS_OF = {
    tag: _marks(" ".join((phrases.common, phrases.opening, *phrases.others)))
    for tag, phrases in PHRASES.items()
}
