"""Praise of a question, and promises to help: what opens an answer and says nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_PRAISE: Mapping[str, str] = {
    "en": r"(?:wow[,!]? )?(?:what (?:a|an) |(?:that|this)(?:['’]s| is) (?:such )?(?:a|an) |a )?"
    r"(?:really |very |truly )?(?:great|good|excellent|wonderful|fantastic|interesting|amazing) "
    r"question(?: indeed)?"
    r"|thank(?:s| you)(?: so much| very much)? for (?:asking|your (?:great |good )?question)"
    r"|(?:i['’]?m|i am|i['’]?d be|i would be) (?:very |so |more than )?(?:happy|glad|delighted) "
    r"to (?:help|assist|answer)(?: you)?(?: with (?:this|that|it|your question))?"
    r"|(?:sure(?: thing)?|of course|certainly|absolutely|no problem)",
    "de": r"(?:das ist )?(?:eine? |was für eine )?(?:wirklich |sehr )?(?:tolle|gute|großartige"
    r"|super|interessante|ausgezeichnete|hervorragende|spannende) frage"
    r"|(?:vielen )?dank(?:e)? für (?:die|deine|ihre) (?:tolle |gute )?frage"
    r"|(?:ich helfe (?:dir|ihnen) (?:sehr )?gerne(?: dabei| weiter)?|gerne?|natürlich|"
    r"selbstverständlich|aber sicher)",
    "es": r"(?:¿?qué |es una |una )?(?:muy )?(?:gran|buena|excelente|estupenda|interesante"
    r"|magnífica) pregunta|qué pregunta tan (?:buena|interesante)"
    r"|(?:muchas )?gracias por (?:preguntar|tu pregunta|su pregunta|la pregunta)"
    r"|(?:estaré|estoy) encantad[oa] de ayudar(?:te|le)|con (?:mucho )?gusto|por supuesto|claro"
    r"(?: que sí)?",
    "fr": r"(?:c['’]est une |quelle |une )?(?:très )?(?:excellente|bonne|super|belle|intéressante) "
    r"question"
    r"|merci (?:beaucoup )?(?:pour|de) (?:votre|ta|cette|poser cette) (?:bonne )?question"
    r"|je (?:suis|serais|serai) (?:ravie?|heureu(?:x|se)) de (?:vous|t['’])\s?aider|bien sûr"
    r"|avec plaisir|certainement",
    "pt": r"(?:que |é uma |essa é uma |uma )?(?:muito )?(?:ótima|boa|excelente|grande"
    r"|interessante) pergunta|que pergunta (?:boa|interessante)"
    r"|(?:muito )?obrigad[oa] (?:por perguntar|pela (?:sua )?pergunta)"
    r"|(?:fico feliz em|terei prazer em|será um prazer) (?:ajudar|ajudá-l[oa])|claro(?: que sim)?"
    r"|com (?:certeza|prazer)",
    "it": r"(?:che |è una |una )?(?:davvero )?(?:ottima|bella|buona|eccellente|grande"
    r"|interessante) domanda"
    r"|grazie (?:mille )?per (?:la|la tua|la sua|aver fatto questa) domanda"
    r"|(?:sono|sarò) (?:felice|lieto|lieta) di aiutar(?:ti|la|vi)|certamente|certo|volentieri"
    r"|con piacere",
    "ru": r"(?:это |какой )?(?:очень )?(?:отличный|хороший|прекрасный|замечательный"
    r"|интересный) вопрос"
    r"|(?:большое )?спасибо за (?:ваш |твой |этот )?(?:хороший |интересный )?вопрос"
    r"|(?:я )?(?:с (?:радостью|удовольствием)|рад(?:а)?) (?:помогу|помочь)(?: вам| тебе)?|конечно",
    "uk": r"(?:це |яке )?(?:дуже )?(?:чудове|гарне|добре|хороше|цікаве|відмінне) (?:за)?питання"
    r"|(?:щиро )?дякую за (?:ваше |твоє |це )?(?:чудове |гарне )?(?:за)?питання"
    r"|(?:я )?(?:з радістю|із задоволенням|залюбки) допоможу(?: вам| тобі)?|звичайно|звісно",
    "ja": r"(?:それは|とても|大変|本当に)*(?:素晴らしい|すばらしい|良い|いい|よい|素敵な"
    r"|興味深い|面白い)"
    r"(?:ご質問|質問|問い)(?:ですね|です)?"
    r"|ご?質問(?:を)?(?:いただき)?、?(?:誠に)?ありがとうございます"
    r"|(?:喜んで|よろこんで)(?:お手伝い(?:いた)?します|お答え(?:いた)?します)|もちろん(?:です)?",
    "zh": r"(?:这(?:真)?是(?:一)?个|這(?:真)?是(?:一)?個|真是(?:一)?个|真是個)?(?:很|非常|真|太)?"
    r"(?:好|棒|有趣|精彩|出色)的?(?:问题|問題)|(?:问|問)得(?:真|很|非常|太)?(?:好|妙)"
    r"|(?:谢谢|感谢|謝謝|感謝)(?:你|您)的?(?:提问|问题|提問|問題)"
    r"|我?很?(?:乐意|高兴|樂意|高興)(?:为|為)?(?:你|您)?(?:解答|帮助(?:你|您)|效劳|幫助(?:你|您))"
    r"|当然(?:可以)?|當然(?:可以)?",
    "ko": r"(?:정말 |아주 |매우 )?(?:좋은|훌륭한|멋진|흥미로운) 질문(?:입니다|이에요|이네요)?"
    r"|질문해 ?(?:주셔서|줘서) (?:정말 )?(?:감사합니다|고맙습니다|고마워요)"
    r"|(?:기꺼이 )?(?:도와드리겠습니다|도와드릴게요)|물론(?:입니다|이죠|이에요)?",
    "ar": r"(?:هذا |إنه |يا له من )?سؤال(?:ٌ)? (?:رائع|ممتاز|جيد|جميل|مثير للاهتمام)(?: جد[اًا]+)?"
    r"|شكر[اًا]+ (?:جزيل[اًا]+ )?(?:لك )?على (?:سؤالك|هذا السؤال|طرح(?:ك)? هذا السؤال)"
    r"|(?:يسعدني|يسرني) (?:أن أساعدك|مساعدتك)|بالتأكيد|بالطبع|طبع[اًا]+",
    "hi": r"(?:यह |ये )?(?:एक )?(?:बहुत (?:ही )?)?(?:बढ़िया|अच्छा|शानदार|बेहतरीन|उत्कृष्ट|दिलचस्प) "
    r"(?:सवाल|प्रश्न)(?: है)?"
    r"|(?:आपके |इस )?(?:सवाल|प्रश्न) (?:के लिए|पूछने के लिए) (?:आपका )?(?:बहुत )?(?:धन्यवाद|शुक्रिया)"
    r"|(?:मुझे )?आपकी (?:मदद|सहायता) करने में (?:बहुत )?(?:खुशी|ख़ुशी) होगी|ज़रूर|बिल्कुल",
    "th": r"(?:นี่)?(?:เป็น)?คำถามที่(?:ดี|ยอดเยี่ยม|น่าสนใจ|เยี่ยม)(?:มาก|จริง ?ๆ)*(?:เลย)?(?:ค่ะ|ครับ|คะ)?"
    r"|ขอบคุณ(?:มาก)?(?:สำหรับ|ที่ถาม)(?:คำถาม)?(?:นี้|ของคุณ)?(?:ค่ะ|ครับ|นะคะ|นะครับ)?"
    r"|(?:ฉัน|ผม|ดิฉัน)?ยินดี(?:ที่จะ)?(?:ช่วย|ตอบ)(?:เหลือ)?(?:คุณ)?(?:ค่ะ|ครับ)?|แน่นอน(?:ค่ะ|ครับ)?",
}
# marks are no word characters to `re`, but Hindi and Thai vowels are marks
_BETWEEN = r"[\s!-/:-@\[-`{-~¡-¿、。！？，：；…।؟،؛‘-”—–\U0001F300-\U0001FAFF\uFE0F]*"
_WORD_ENDS = r"(?!\w)|(?<=[\u0e00-\u0eff\u3040-\u9fff])"
_OPENINGS = re.compile(
    rf"{_BETWEEN}(?:(?:{'|'.join(_PRAISE.values())})(?:{_WORD_ENDS}){_BETWEEN})+", re.IGNORECASE
)
_MOST_CHARACTERS = 400


def without_praise(text: str) -> str:
    """The text without the praise of the question that it opens with, in any of 14 languages.

    >>> without_praise("Great question! Thanks for asking. Lima."), without_praise("Sure!")
    ('Lima.', '')
    """
    opening = _OPENINGS.match(text[:_MOST_CHARACTERS])
    return text[opening.end() :] if opening else text
