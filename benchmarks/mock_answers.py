"""What the mock teacher says: canned sentences in the language it is asked in.

An answer is a function of seed, model, conversation and its place among the
answers of one call. It opens with a number that the conversation decides, goes
on with its quality as `[quality 0.73]`, and fills up with eight sentences that
make sense and, where that is not enough, with others whose words are shuffled:
said again and again, sentences would be stopped by a gate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING

from mock_script import chances, normal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mock_script import Script

ENGLISH = "en"

_PREFIX = re.compile(r"\s*\[([A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*)\]\s")
_BYTES_PER_TOKEN = 4
_WORDS_OF_A_SENTENCE = 12
_LETTERS_OF_A_WORD = 3
# in this order: kana and Hangul tell a language that is written with Han letters, too
_SCRIPTS = tuple(
    (language, re.compile(letters))
    for language, letters in (
        ("ja", "[\u3040-\u30ff]"),
        ("ko", "[\uac00-\ud7a3]"),
        ("zh", "[\u4e00-\u9fff]"),
        ("ar", "[\u0621-\u064a]"),
        ("hi", "[\u0904-\u0939]"),
        ("th", "[\u0e01-\u0e3a]"),
        ("uk", "[\u0404\u0406\u0407\u0454\u0456\u0457\u0490\u0491]"),
        ("ru", "[\u0410-\u044f]"),
    )
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and the thoughts that are told beside it."""

    text: str
    reasoning: str


def answer(script: Script, name: str, prompt: str, language: str, place: int) -> Answer:
    """What a model says, in one place among the answers of a call."""
    model = script.model(name)
    chance, first, second = chances(script.seed, name, "answer", prompt, place)
    quality = model.mean_quality(language) + model.quality_noise * normal(first, second)
    phrases = PHRASES.get(language) or PHRASES.get(language.partition("-")[0]) or PHRASES[ENGLISH]
    number = 100_000 + int(chance * 900_000)
    mark = f"[quality {min(max(quality, 0.0), 1.0):.2f}]"
    opening = f"{phrases.opening.replace('#', str(number))} {mark}"
    turn = number % len(phrases.clauses)
    text = opening + sentences(phrases, turn, model.answer_characters - len(opening))
    if model.reasoning == "none":
        return Answer(text, "")
    thoughts = phrases.sentence(turn).strip()
    if model.reasoning == "think":
        return Answer(f"<think>\n{thoughts}\n</think>\n\n{text}", "")
    return Answer(text, thoughts)


def language_of(prompt: str, header: str | None) -> str:
    """The header's, or else that of a prefix such as `[de] `, of the script, or English."""
    if header:
        return header
    if prefix := _PREFIX.match(prompt):
        return prefix[1]
    if not prompt.isascii():
        for language, letters in _SCRIPTS:
            if letters.search(prompt):
                return language
    return ENGLISH


def tokens(text: str) -> int:
    """What a text is billed as: four bytes a token."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)


@dataclass(frozen=True, eq=False)
class Phrases:
    """What can be said in one language: adverbials, and clauses that go on from any of them."""

    opening: str
    adverbials: tuple[str, ...]
    clauses: tuple[str, ...]
    stop: str = "."
    space: str = " "

    def sentence(self, turn: int) -> str:
        """The sentence whose turn it is, with the space before it."""
        return self._sentence(turn, self.clauses[turn % len(self.clauses)])

    def shuffled(self, turn: int) -> str:
        """A sentence of words that are drawn from all clauses."""
        words = [w for clause in self.clauses for w in _words(clause)]
        drawn = (chances(turn, place) for place in range(_WORDS_OF_A_SENTENCE // 3))
        said = (words[int(chance * len(words))] for three in drawn for chance in three)
        return self._sentence(turn, self.space.join(said))

    def _sentence(self, turn: int, clause: str) -> str:
        adverbial = self.adverbials[turn % len(self.adverbials)]
        return f"{self.space}{adverbial}{self.space}{clause}{self.stop}"


def _words(clause: str) -> list[str]:
    """A clause's words, or a few letters each where words are not spaced."""
    if " " in clause:
        return clause.split()
    return [clause[i : i + _LETTERS_OF_A_WORD] for i in range(0, len(clause), _LETTERS_OF_A_WORD)]


@lru_cache(maxsize=1024)
def sentences(phrases: Phrases, start: int, characters: int) -> str:
    """As many whole sentences as fit: every clause in turn, then their words shuffled."""
    said: list[str] = []
    for turn in count(start):
        natural = turn - start < len(phrases.clauses)
        sentence = phrases.sentence(turn) if natural else phrases.shuffled(turn)
        characters -= len(sentence)
        if characters < 0:
            break
        said.append(sentence)
    return "".join(said)


def _phrases(opening: str, adverbials: str, clauses: str, **marks: str) -> Phrases:
    return Phrases(opening, tuple(adverbials.split("|")), tuple(clauses.split("|")), **marks)


PHRASES: Mapping[str, Phrases] = {
    "en": _phrases(
        "There are # good reasons for this, and most people know a few of them.",
        "In summer,|In many towns,|According to our teachers,|Even today,|At the market,",
        "it depends on the weather and on the place where you live|our grandparents tell the same"
        " story to their children|you can try it at home with things from the kitchen|whoever"
        " looks closely understands how it works|the fishermen talk about it every morning"
        "|children ask their parents for the reason|old books describe it with beautiful pictures"
        "|nobody needs more than an hour to learn it",
    ),
    "de": _phrases(
        "Dafür gibt es # gute Gründe, und einige davon kennen fast alle Menschen.",
        "Im Sommer|In vielen Städten|Nach Ansicht der Lehrer|Noch heute|Auf dem Markt",
        "hängt es vom Wetter und vom Wohnort ab|erzählen unsere Großeltern den Kindern dieselbe"
        " Geschichte|kann man es zu Hause mit Dingen aus der Küche ausprobieren|versteht jeder,"
        " der genau hinschaut, wie es funktioniert|sprechen die Fischer jeden Morgen darüber"
        "|fragen die Kinder ihre Eltern nach dem Grund|beschreiben alte Bücher es mit schönen"
        " Bildern|braucht niemand länger als eine Stunde, um es zu lernen",
    ),
    "es": _phrases(
        "Hay # buenas razones para ello, y casi toda la gente conoce algunas.",
        "En verano,|En muchas ciudades,|Según los maestros,|Todavía hoy,|En el mercado,",
        "depende del tiempo y del lugar donde uno vive|nuestros abuelos cuentan la misma historia"
        " a los niños|se puede probar en casa con cosas de la cocina|quien mira con atención"
        " entiende cómo funciona|los pescadores hablan de ello cada mañana|los niños preguntan la"
        " razón a sus padres|los libros antiguos lo describen con dibujos hermosos|nadie necesita"
        " más de una hora para aprenderlo",
    ),
    "fr": _phrases(
        "Il y a # bonnes raisons à cela, et presque tout le monde en connaît quelques-unes.",
        "En été,|Dans beaucoup de villes,|Selon les professeurs,|Encore aujourd’hui,|Au marché,",
        "cela dépend du temps et de l’endroit où l’on habite|nos grands-parents racontent la même"
        " histoire aux enfants|on peut l’essayer chez soi avec des objets de la cuisine|celui qui"
        " regarde de près comprend comment cela fonctionne|les pêcheurs en parlent chaque matin"
        "|les enfants en demandent la raison à leurs parents|les vieux livres le décrivent avec de"
        " belles images|personne n’a besoin de plus d’une heure pour l’apprendre",
    ),
    "it": _phrases(
        "Ci sono # buone ragioni per questo, e quasi tutti ne conoscono alcune.",
        "In estate|In molte città|Secondo gli insegnanti|Ancora oggi|Al mercato",
        "dipende dal tempo e dal luogo in cui si vive|i nostri nonni raccontano la stessa storia ai"
        " bambini|si può provare a casa con le cose della cucina|chi guarda con attenzione capisce"
        " come funziona|i pescatori ne parlano ogni mattina|i bambini ne chiedono la ragione ai"
        " genitori|i vecchi libri lo descrivono con belle immagini|nessuno ha bisogno di più di"
        " un’ora per impararlo",
    ),
    "pt": _phrases(
        "Há # boas razões para isso, e quase todas as pessoas conhecem algumas.",
        "No verão,|Em muitas cidades,|Segundo os professores,|Ainda hoje,|No mercado,",
        "depende do tempo e do lugar onde se mora|os nossos avós contam a mesma história às"
        " crianças|é possível experimentar em casa com coisas da cozinha|quem olha com atenção"
        " entende como funciona|os pescadores falam disso todas as manhãs|as crianças perguntam a"
        " razão aos pais|os livros antigos o descrevem com belas imagens|ninguém precisa de mais de"
        " uma hora para aprender",
    ),
    "ru": _phrases(
        "Для этого есть # веских причин, и некоторые из них известны почти всем.",
        "Летом|Во многих городах|По мнению учителей,|И сегодня|На рынке",
        "это зависит от погоды и от места, где вы живёте|наши бабушки рассказывают детям ту же"
        " историю|это можно попробовать дома с вещами из кухни|внимательный человек понимает, как"
        " это работает|рыбаки говорят об этом каждое утро|дети спрашивают родителей о причине"
        "|старые книги описывают это с красивыми рисунками|никому не нужно больше часа, чтобы"
        " этому научиться",
    ),
    "uk": _phrases(
        "Для цього є # вагомих причин, і деякі з них відомі майже всім.",
        "Влітку|У багатьох містах|На думку вчителів,|І сьогодні|На ринку",
        "це залежить від погоди та від місця, де ви живете|наші бабусі розповідають дітям ту саму"
        " історію|це можна спробувати вдома з речами з кухні|уважна людина розуміє, як це працює"
        "|рибалки говорять про це щоранку|діти запитують батьків про причину|старі книги описують"
        " це з гарними малюнками|нікому не потрібно більше години, щоб цього навчитися",
    ),
    "ja": _phrases(
        "それには#個のよい理由があり、いくつかは多くの人が知っています。",
        "夏には、|多くの町では、|先生たちによれば、|今でも、|市場では、",
        "天気や住んでいる場所によって変わります|祖父母が子どもたちに同じ話をしています|台所にある"
        "ものを使って試すことができます|よく見る人には仕組みがすぐに分かります|漁師たちが毎朝その"
        "ことを話しています|子どもたちが親に理由を尋ねます|古い本が美しい絵でそれを説明しています"
        "|誰でも一時間あれば覚えられます",
        stop="。",
        space="",
    ),
    "zh": _phrases(
        "这件事有#个很好的理由，大多数人都知道其中几个。",
        "夏天，|在许多城市里，|老师们认为，|直到今天，|在市场上，",
        "这要看天气和你住的地方|我们的爷爷奶奶给孩子们讲同样的故事|你可以用厨房里的东西在家里试一试"
        "|仔细看的人很快就明白它是怎么回事|渔民们每天早上都谈论这件事|孩子们会向父母问起其中的原因"
        "|古老的书用美丽的图画来描写它|谁都用不了一个小时就能学会",
        stop="。",
        space="",
    ),
    "ko": _phrases(
        "여기에는 #가지 좋은 이유가 있고, 몇 가지는 많은 사람이 알고 있습니다.",
        "여름에는|많은 도시에서는|선생님들에 따르면|오늘날에도|시장에서는",
        "날씨와 사는 곳에 따라 달라집니다|할머니와 할아버지가 아이들에게 같은 이야기를 들려줍니다"
        "|부엌에 있는 물건으로 직접 해 볼 수 있습니다|자세히 보는 사람은 어떻게 되는지 금방 압니다"
        "|어부들이 아침마다 그 이야기를 합니다|아이들이 부모에게 이유를 묻습니다|오래된 책이"
        " 아름다운 그림으로 그것을 설명합니다|누구나 한 시간이면 배울 수 있습니다",
    ),
    "ar": _phrases(
        "هناك # من الأسباب الجيدة لذلك، ويعرف معظم الناس بعضها.",
        "في الصيف|في مدن كثيرة|حسب رأي المعلمين|حتى اليوم|في السوق",
        "يتعلق الأمر بالطقس وبالمكان الذي تعيش فيه|يروي أجدادنا القصة نفسها للأطفال|يمكنك أن تجرب"
        " ذلك في البيت بأشياء من المطبخ|يفهم من ينظر جيدا كيف يحدث ذلك|يتحدث الصيادون عن ذلك كل"
        " صباح|يسأل الأطفال آباءهم عن السبب|تصف الكتب القديمة ذلك بصور جميلة|لا يحتاج أحد إلى أكثر"
        " من ساعة ليتعلم ذلك",
    ),
    "hi": _phrases(
        "इसके # अच्छे कारण हैं, और उनमें से कुछ लगभग सब लोग जानते हैं।",
        "गर्मियों में|कई शहरों में|शिक्षकों के अनुसार|आज भी|बाज़ार में",
        "यह मौसम पर और आपके रहने की जगह पर निर्भर करता है|हमारे दादा-दादी बच्चों को यही कहानी"
        " सुनाते हैं|आप इसे घर पर रसोई की चीज़ों से आज़मा सकते हैं|जो ध्यान से देखता है, वह समझ जाता"
        " है कि यह कैसे होता है|मछुआरे हर सुबह इसके बारे में बात करते हैं|बच्चे अपने माता-पिता से"
        " इसका कारण पूछते हैं|पुरानी किताबें सुंदर चित्रों के साथ इसका वर्णन करती हैं|इसे सीखने में"
        " किसी को एक घंटे से ज़्यादा नहीं लगता",
        stop="।",
    ),
    "th": _phrases(
        "เรื่องนี้มีเหตุผลที่ดี # ข้อ และคนส่วนใหญ่รู้จักบางข้อ",
        "ในฤดูร้อน|ในหลายเมือง|ตามความเห็นของครู|แม้ในวันนี้|ที่ตลาด",
        "ขึ้นอยู่กับอากาศและสถานที่ที่คุณอาศัยอยู่|ปู่ย่าตายายเล่าเรื่องเดียวกันให้เด็กฟัง|คุณลองทำที่บ้านได้ด้วย"
        "ของในครัว|คนที่มองอย่างตั้งใจจะเข้าใจว่ามันเป็นอย่างไร|ชาวประมงพูดถึงเรื่องนี้ทุกเช้า|เด็กถามพ่อแม่"
        "ถึงเหตุผล|หนังสือเก่าอธิบายด้วยภาพที่สวยงาม|ทุกคนเรียนรู้ได้ภายในหนึ่งชั่วโมง",
        stop="",
    ),
}
