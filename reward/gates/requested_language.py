"""Which other languages a prompt allows its answer: it may ask for a translation, say.

Read from the words of 14 languages, of all of them at once: "Translate into German: ..."
may come with a page of Japanese, in whose language it is then said to be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbitrage.types import Prompt

# tag by tag, the stems of a language's name in these 14; other words may hold a stem of
# three letters, so it is followed by its ending
_NAMES: Mapping[str, str] = {
    "ar": r"arabi[cs]|arabo\b|árabe|arabe|арабськ|арабск|アラビア語|阿拉伯[语文語]|아랍어|عربي|अरबी"
    r"|อาหรับ|arabisch",
    "de": r"german\b|deutsch|alem[aá]n|alemão|alemã|allemand|tedesco|немецк|німецьк|ドイツ語"
    r"|德[语文語]|독일어|[أا]لماني|जर्मन|เยอรมัน",
    "en": r"engl[ie]s[hc]|inglés|inglese?|anglais|inglês|английск|англійськ|英[語文语]|영어|영문"
    r"|[إا]نجليزي|[إا]نكليزي|अंग्रेज़?ी|इंग्लिश|อังกฤษ",
    "es": r"spanish|spanisch|español|castellano|espagnol|espanhol|spagnolo|испанск|іспанськ"
    r"|スペイン語|西班牙[语文語]|스페인어|[إا]سباني|स्पेनिश|स्पैनिश|สเปน",
    "fr": r"french|französisch|francés|français|francês|francese|французск|французьк"
    r"|フランス語|仏語|法[语文語]|프랑스어|불어|فرنسي|फ्रेंच|फ़्रेंच|फ़्रांसीसी|ฝรั่งเศส",
    "hi": r"hindi|хинди|гінді|ヒンディー語|印地[语文語]|힌디어|هندي|हिंदी|हिन्दी|ฮินดี",
    "it": r"italian|italienisch|italien|italiano|итальянск|італійськ|イタリア語|意大利[语文語]"
    r"|이탈리아어|[إا]يطالي|इतालवी|इटैलियन|อิตาลี",
    "ja": r"japanese|japanisch|japon[ée]s|japonais|japonês|giapponese|японск|японськ|日本語|和訳"
    r"|日[语文語]|일본어|일어|ياباني|जापानी|ญี่ปุ่น",
    "ko": r"korean|koreanisch|coreano|coréen|корейск|корейськ|韓国語|韩[语文]|韓[語文]|한국어|한글"
    r"|كوري|कोरियाई|เกาหลี",
    "pt": r"portug[uû]?[eiu]+s|portugais|portoghese|португальск|португальськ|ポルトガル語"
    r"|葡萄牙[语文語]|葡[语文語]|포르투갈어|برتغالي|पुर्तगाली|โปรตุเกส",
    "ru": r"russian|russisch|ruso\b|russe\b|russo\b|русск|російськ|ロシア語|俄[语文語]|러시아어"
    r"|روسي|रूसी|รัสเซีย",
    "th": r"\bthai|tailand[eé]s|thaïlandais|tailandês|thailandese|тайск|тайськ|タイ語|泰[语文語]"
    r"|태국어|تايلاندي|थाई|ภาษาไทย|เป็นไทย",
    "uk": r"ukrainian|ukrainisch|ucrania?n[oa]|ukrainien|ucraino|украинск|українськ"
    r"|ウクライナ語|乌克兰[语文語]|烏克蘭[语文語]|우크라이나어|[أا]وكراني|यूक्रेनी|ยูเครน",
    "zh": r"chinese|mandarin|chinesisch|chino\b|mandarín|chinois|chinês|cinese|китайск|китайськ"
    r"|中国語|中[文譯]|汉语|漢語|国语|简体|繁體|중국어|صيني|चीनी|จีน",
    "nl": r"dutch|niederländisch|neerlandés|holandés|néerlandais|holandês|olandese|нидерландск"
    r"|голландск|нідерландськ|オランダ語|荷兰[语文語]|네덜란드어|هولندي|डच|ดัตช์",
    "pl": r"polish|polnisch|polaco|polonais|polonês|polacco|польск|польськ|ポーランド語"
    r"|波兰[语文語]|폴란드어|بولندي|पोलिश|โปแลนด์",
    "tr": r"turkish|türkisch|turco|\bturc\b|турецк|турецьк|トルコ語|土耳其[语文語]|터키어"
    r"|튀르키예어|تركي|तुर्की|ตุรกี",
    "vi": r"vietnamese|vietnamesisch|vietnamita|vietnamien|вьетнамск|в['’]єтнамськ|ベトナム語"
    r"|越南[语文語]|베트남어|فيتنامي|वियतनामी|เวียดนาม",
}
_TRANSLATING = re.compile(
    r"translat|transliterat|romani[sz]|\bromaji|pinyin|übersetz|übertrag|tradu[czis]|traduire"
    r"|trasl[ai]t|перев[её]д|перевод|перевест|транслит|переклад|перекла[сд]|翻訳|訳し|[和英]訳|ローマ字"
    r"|[翻]译|翻譯|译[成为]|譯[成為]|拼音|번역|로마자|ترجم|अनुवाद|तर्जुमा|रोमन|แปล|โรมัน",
    re.IGNORECASE,
)
_NAME = "|".join(f"(?P<{tag}>{stems})" for tag, stems in _NAMES.items())
# what stands before or behind a language's name where an answer in it is asked for
_BEFORE = (
    r"\b(?:in|into|to|auf|ins|aufs|en|al|em|ao|no|para(?: el| o)?|in lingua|na|на|по[- ]?|"
    r"langue|lengua|língua|lingua)\s*(?:(?:plain|simple|fluent|la|le|der|die|das) ){0,2}"
    r"|[用以]|(?:بال|إلى ال|الى ال|باللغة ال|لل)|(?:เป็น|ด้วย)?ภาษา"
)
_BEHIND = (
    r"(?:で|に(?!つい)|にし|へ)|(?:로|으로)(?!\w*\s*(?:된|쓰인))|\s*(?:भाषा )?में"
    r"|\w*ою\b|(?:来|回答|写|答|寫)"
)
_ASKED_FOR = re.compile(rf"(?:{_BEFORE})(?:{_NAME})", re.IGNORECASE)
_ASKED_FOR_AFTER = re.compile(rf"(?:{_NAME})(?:{_BEHIND})", re.IGNORECASE)
_NAMED = re.compile(_NAME, re.IGNORECASE)
_EDITING = re.compile(
    r"correct|proofread|rewrit|rephras|paraphras|improv|polish|\bedit|continu|grammar|spelling"
    r"|korrigier|verbesser|umschreib|umformulier|überarbeit|rechtschreib|grammatik"
    r"|setze?\b[^\n]{0,80}? fort\b"
    r"|corrig|correg|corrij|mejora|melhor|migliora|amélior|r[ée][eé]?[sé]?cri|riscriv|reformul"
    r"|riformul|gram[aá]tic|grammair|ortograf|orthograph"
    r"|исправ|перепи[шс]|улучш|отредакт|граммат|виправ|покращ|відредаг|граматик"
    r"|添削|修正|直して|校正|書き換え|書き直|推敲|言い換え|文法|続き|続け"
    r"|修改|纠正|糾正|润色|潤色|改写|改寫|校对|改错|语法|文法|续写"
    r"|고쳐|수정|교정|다듬|바꿔|문법|صحح|صحّح|صياغة|حسّن|دقق|نحوي|सुधार|ठीक कर|व्याकरण|दोबारा लिख"
    r"|แก้ไข|ปรับปรุง|เขียนใหม่|เรียบเรียง|ไวยากรณ์",
    re.IGNORECASE,
)
_READ = 4000
_PIECES = re.compile(r"[\n:：\"“”„«»「」『』]+")


@dataclass(frozen=True, slots=True)
class Requested:
    """What a prompt says of its answer's language.

    Attributes:
        languages: tags that an answer may be in beside the prompt's own.
        translates: it asks for a translation, or for another script.
        named: tags of languages that it speaks of: their words may be quoted.
        edits: it asks for a text to be corrected or rewritten, in whatever language that is.
    """

    languages: frozenset[str]
    translates: bool
    named: frozenset[str]
    edits: bool

    @property
    def any_language(self) -> bool:
        """It asks for a translation, and does not say into what."""
        return self.translates and not self.named

    def allows(self, language: str) -> bool:
        """Whether an answer may be in this language, or in one whose names are not known here."""
        if language in self.languages or self.any_language:
            return True
        return self.translates and language not in _NAMES


def requested(prompt: Prompt) -> Requested:
    """Reads a prompt's own messages, its system's included.

    >>> from arbitrage.types import Prompt
    >>> sorted(requested(Prompt.of("Antworte bitte auf Englisch: Warum schwimmt Eis?")).languages)
    ['en']
    >>> requested(Prompt.of("「猫」を訳してください")).any_language
    True
    """
    text = "\n".join(m.content for m in prompt.messages if m.role != "assistant")
    # a request stands before a long text or behind it
    if len(text) > 2 * _READ:
        text = f"{text[:_READ]}\n{text[-_READ:]}"
    named = _tags(_NAMED, text)
    asked_for = _tags(_ASKED_FOR, text) | _tags(_ASKED_FOR_AFTER, text)
    translates = bool(_TRANSLATING.search(text))
    return Requested(
        languages=named if translates else asked_for,
        translates=translates,
        named=named,
        edits=bool(_EDITING.search(text)),
    )


def passages(prompt: Prompt) -> list[str]:
    """The pieces that a prompt falls into: what it says, and the texts it says it of."""
    return [piece.strip() for piece in _PIECES.split(prompt.text) if piece.strip()]


def _tags(pattern: re.Pattern[str], text: str) -> frozenset[str]:
    return frozenset(found.lastgroup for found in pattern.finditer(text) if found.lastgroup)
