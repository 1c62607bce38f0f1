"""Phrases that decline to answer: an apology and an inability, or an inability alone.

An apology by itself is no refusal ("I'm sorry for your loss. ..."), nor is every
inability ("I can't wait to see you!"): the verb has to be one of serving a request.
"""

from __future__ import annotations

import re

# per language: how a refusal is led in | who cannot do what, in the first person
_LEADS_AND_REFUSALS = {
    "en": (
        r"(?:i['’]?m|i am|we['’]re)?\s*(?:\w+\s)?sorry\b|(?:i|my) apolog|unfortunately\b|regrettably\b"
        r"|as an? (?:ai|artificial|(?:large )?language model)\b",
        r"(?:i|we)(?:['’]m| am|['’]re| are)? (?:can ?not|can['’]?t|won['’]t|unable to|not able to) "
        r"(?:\w+ ){0,2}?(?:help|assist|answer|provid|do (?:that|this|so)\b|comply|fulfil|complete"
        r"|generat|creat|writ|support|engage|discuss|share|give|offer|respond|access|continue"
        r"|process|translat|identify)|i (?:must|have to) decline",
    ),
    "de": (
        r"(?:es )?tut mir (?:\w+ )?leid\b|entschuldig|leider\b|als (?:ki|sprachmodell|künstlich)",
        r"(?:ich )?(?:kann|darf|könnte) (?:ich )?(?:\S+ ){0,8}?(?:nicht|keine?n?)\b.{0,60}?"
        r"(?:helfen|beantworten|antworten|unterstützen|bereitstellen|geben|erfüllen|erstellen"
        r"|schreiben|liefern|weiterhelfen|nachkommen|verfassen)",
    ),
    "es": (
        r"lo (?:siento|lamento)\b|lamento\b|disculp|perd[oó]n|lamentablemente\b"
        r"|como (?:una? )?(?:ia|intelig|modelo|asistente)",
        r"no (?:(?:te|le|les|os) )?(?:puedo|podemos|soy capaz de|me es posible) (?:ayudar|responder"
        r"|proporcionar|hacerlo|hacer eso|cumplir|generar|crear|escribir|dar|ofrecer|acceder"
        r"|brindar|asistir|contestar|compartir|facilitar)",
    ),
    "fr": (
        r"(?:je (?:suis|regrette)\b.{0,12}?)?d[ée]sol[ée]|je regrette|je m['’]excuse|malheureusement"
        r"|en tant qu",
        r"je ne (?:peux|puis|suis)(?: malheureusement)?(?: pas)?(?: en mesure| capable)?"
        r" (?:de |d['’])?(?:(?:vous|te|y) )?(?:aider|répondre|fournir|faire (?:cela|ça)|générer"
        r"|créer|écrire|donner|offrir|accéder|assister|traiter|partager|satisfaire)",
    ),
    "pt": (
        r"sinto muito|desculp|lamento|infelizmente|como (?:uma? )?(?:ia|intelig|modelo|assistente)",
        r"(?:eu )?não (?:(?:te|lhe|o|a) )?(?:posso|podemos|consigo|sou capaz de) (?:ajud|respond"
        r"|fornec|fazer isso|cumpr|ger|cri|escrev|dar\b|oferec|acess|atend|compartilh|auxili)",
    ),
    "it": (
        r"mi (?:dispiace|spiace)|scus|purtroppo|(?:come|in quanto) (?:ia|intellig|modello|assistente)",
        r"non (?:(?:ti|vi|le) )?(?:posso|possiamo|sono in grado di) (?:aiut|rispond|forni|farlo"
        r"|soddisf|gener|crea|scriv|dare|darti|offri|acced|assist|condivid)",
    ),
    "ru": (
        r"к сожалению|извин|прости|мне жаль|как (?:ии|искусств|языков)",
        r"(?:но )?я (?:\S+ )?не (?:могу|смогу|способ\S+|в состоянии) (?:\S+ ){0,2}?(?:помо|ответ"
        r"|отвеч|предостав|выполн|дать|созда|напис|сдела|обсужд|подел)",
    ),
    "uk": (
        r"на жаль|вибач|перепрош|прикро|як (?:ші|штучн|мовн)",
        r"(?:але )?я (?:\S+ )?не (?:можу|зможу|здат\S+|в змозі) (?:\S+ ){0,2}?(?:допом|відпов|над"
        r"|викон|дати|створ|напис|зроб|обговор|поділ)",
    ),
    "ja": (
        r"(?:大変|誠に)?(?:申し訳|すみません|ごめんなさい|恐れ入りますが|残念ながら|ai)",
        r"(?:私は|その|この|そのような|ご)?[^。\n]{0,16}?(?:答え|応え|回答|手伝い|提供|対応|支援|協力|手助け|作成|生成)"
        r"[^。\n]{0,14}?(?:でき(?:ません|かね)|出来(?:ません|かね)|いたしかね|致しかね|しかね|控え)",
    ),
    "zh": (
        r"(?:很|非常|十分|真的)?(?:抱歉|对不起|遗憾|對不起|不好意思)|作为(?:一个|一名)?(?:人工智能|ai|语言模型)",
        r"我(?:们)?(?:目前|暂时|现在|并)?(?:无法|不能|没法|不便|無法|沒法)[^。\n]{0,10}?(?:提供|回答|协助|帮|满足|完成|执行|生成"
        r"|讨论|给出|访问|看到|处理|继续|提供|協助|幫|滿足)",
    ),
    "ko": (
        r"(?:정말 |대단히 )?(?:죄송|미안|유감|안타깝)|(?:저는 )?(?:ai|인공지능)",
        r"(?:저는 |그 |해당 |이 )?[^.\n]{0,24}?(?:답변|대답|도와|도움|제공|도울|응답|지원|작성|생성|수행|처리)"
        r"[^.\n]{0,14}?(?:수(?:는|가)? 없습니다|못합니다|어렵습니다)",
    ),
    "ar": (
        r"(?:أنا )?(?:عذر|آسف|أعتذر|معذرة|للأسف)|(?:بصفتي|كوني|كنموذج)",
        r"(?:لا|لن) (?:أستطيع|يمكنني|يمكننا|أقدر|أتمكن من) (?:\S+ ){0,2}?(?:ال)?(?:مساعد|أساعد|إجاب|رد\b"
        r"|تقديم|تلبي|توفير|إنشاء|كتاب|تنفيذ|مشارك|إعطاء)",
    ),
    "hi": (
        r"(?:मुझे )?(?:माफ़|माफ|क्षमा|खेद)|मैं एक (?:ai|एआई)",
        r"मैं [^।\n]{0,60}?(?:मदद|सहायता|उत्तर|जवाब|प्रदान|जानकारी|पूरा)[^।\n]{0,16}?"
        r"(?:नहीं (?:कर|दे|हो)? ?(?:सक|पा)|असमर्थ)",
    ),
    "th": (
        r"(?:ต้อง)?(?:ขออภัย|ขอโทษ|เสียใจ)|ใน?ฐานะ",
        r"(?:แต่)?(?:ผม|ฉัน|ดิฉัน|เรา)(?:ไม่สามารถ|ไม่อาจ|ช่วย)[^\n]{0,12}?(?:ช่วย|ตอบ|ให้|ทำตาม|สร้าง|เขียน"
        r"|ดำเนินการ|เข้าถึง)",
    ),
}
_REFUSALS = re.compile(
    "|".join(
        # an apology that is the whole answer declines, too
        rf"^\W*(?:(?:{lead})[^\n]{{0,80}}?)?(?<!\w)(?:{refusal})|^\W*(?:{lead})\W*$"
        for lead, refusal in _LEADS_AND_REFUSALS.values()
    ),
    re.IGNORECASE,
)
_OPENING = 300


def declining(text: str) -> str | None:
    """The phrase by which a text opens to decline, if it does.

    >>> declining("I'm sorry, but I can't help with that. Is there anything else?")
    "I'm sorry, but I can't help"
    >>> declining("I'm sorry for your loss. Nobody can help it."), declining("I can't wait!")
    (None, None)
    """
    found = _REFUSALS.match(" ".join(text[:_OPENING].split()))
    return found.group(0).strip() if found else None
