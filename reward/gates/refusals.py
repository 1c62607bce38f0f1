"""Phrases that decline to answer: an apology and an inability, or an inability alone.

An apology by itself is no refusal ("I'm sorry for your loss. ..."), nor is every
inability ("I can't wait to see you!"): the verb has to be one of serving a request.
"""

from __future__ import annotations

import re


def _declining_in(lead: str, refusal: str) -> str:
    """A pattern for one language: how a refusal is led in, and who cannot do what.

    The refusal is in the first person; the lead may be missing, or be all there is.
    """
    return rf"^\W*(?:(?:{lead})[^\n]{{0,80}}?)?(?<!\w)(?:{refusal})|^\W*(?:{lead})\W*$"


_REFUSALS = (
    _declining_in(  # English
        r"(?:i['’]?m|i am|we['’]re)?\s*(?:\w+\s)?sorry\b|(?:i|my) apolog\w*"
        r"|unfortunately\b|regrettably\b|i(?:['’]m| am) afraid\b|forgive me\b"
        r"|as an? (?:ai|artificial|(?:large )?language model)\b",
        r"(?:i|we)(?:['’]m| am|['’]re| are)? (?:can ?not|can['’]?t|won['’]t|unable to|not able to) "
        r"(?:\w+ ){0,2}?(?:help(?! but| it\b| \w+ing)|assist|answer|provid|do (?:that|this|so)\b"
        r"|comply|fulfil|complete|generat|creat|writ|support|engage|discuss|share"
        r"|give (?:you|advice|out)|offer|respond|access|continue|process|translat|identify)"
        r"|i (?:must|have to) decline",
    ),
    _declining_in(  # German
        r"(?:es )?tut mir (?:\w+ )?leid\b|entschuldig\w*|leider\b|bedauerlicherweise\b|verzeih\w*"
        r"|ich bedaue?re"
        r"|als (?:ki|sprachmodell|künstlich)",
        r"(?:ich (?:kann|darf)|(?:kann|darf) ich) (?:\S+ ){0,8}?(?:nicht|keine?n?)\b.{0,60}?"
        r"(?:helfen|beantworten|antworten|unterstützen|bereitstellen|geben|erfüllen|erstellen"
        r"|schreiben|liefern|weiterhelfen|nachkommen|verfassen)",
    ),
    _declining_in(  # Spanish
        r"lo (?:siento|lamento)\b|lamento\b|disculp\w*|perd[oó]n\w*|lamentablemente\b"
        r"|me temo que|por desgracia|desafortunadamente|desgraciadamente"
        r"|como (?:una? )?(?:ia|intelig|modelo|asistente)",
        r"no (?:(?:te|le|les|os) )?(?:puedo|podemos|soy capaz de|me es posible) (?:ayudar|responder"
        r"|proporcionar|hacerlo|hacer eso|cumplir|generar|crear|escribir|dar|ofrecer|acceder"
        r"|brindar|asistir|contestar|compartir|facilitar)",
    ),
    _declining_in(  # French
        r"(?:je (?:suis|regrette)\b.{0,12}?)?d[ée]sol[ée]e?|je regrette|je m['’]excuse"
        r"|pardon|(?:je suis )?navrée?"
        r"|malheureusement|en tant qu",
        r"je ne (?:peux|puis|suis)(?: malheureusement)?(?: pas)?(?: en mesure| capable)?"
        r" (?:de |d['’])?(?:(?:vous|te|y) )?(?:aider|répondre|fournir|faire (?:cela|ça)|générer"
        r"|créer|écrire|donner|offrir|accéder|assister|traiter|partager|satisfaire)",
    ),
    _declining_in(  # Portuguese
        r"sinto muito|desculp\w*|lamento|infelizmente|(?:peço )?perdão|peço desculpas?"
        r"|como (?:uma? )?(?:ia|intelig|modelo|assistente)",
        r"(?:eu )?não (?:(?:te|lhe|o|a) )?(?:posso|podemos|consigo|sou capaz de) (?:ajud|respond"
        r"|fornec|fazer isso|cumpr|gerar|criar|escrev|dar\b|oferec|acess|atend|compartilh|auxili)",
    ),
    _declining_in(  # Italian
        r"mi (?:dispiace|spiace|rincresce)|scus\w*|purtroppo|spiacente|sfortunatamente"
        r"|(?:come|in quanto) (?:ia|intellig|modello|assistente)",
        r"non (?:(?:ti|vi|le) )?(?:posso|possiamo|sono in grado di) (?:aiut|rispond|forni|farlo"
        r"|soddisf|gener|crea|scriv|dare|darti|offri|acced|assist|condivid)",
    ),
    _declining_in(  # Russian
        r"к сожалению|извини(?:те)?|прости(?:те)?|мне (?:очень )?жаль|прошу прощения|сожалею"
        r"|как (?:ии|искусств|языков)",
        r"(?:но )?я (?:\S+ )?не (?:могу|смогу|способ\S+|в состоянии) (?:\S+ ){0,2}?(?:помо|ответ"
        r"|отвеч|предостав|выполн|дать|созда|напис|сдела|обсужд|подел)",
    ),
    _declining_in(  # Ukrainian
        r"на жаль|вибач(?:те)?|перепрошую|прикро|прошу вибачення|мені (?:дуже )?шкода"
        r"|як (?:ші|штучн|мовн)",
        r"(?:але )?я (?:\S+ )?не (?:можу|зможу|здат\S+|в змозі) (?:\S+ ){0,2}?(?:допом|відпов|над"
        r"|викон|дати|створ|напис|зроб|обговор|поділ)",
    ),
    _declining_in(  # Japanese
        r"(?:大変|誠に)?(?:申し訳(?:ありません|ございません)?|すみません|ごめんなさい|恐れ入りますが|恐縮ですが|あいにく|残念ながら|ai)",
        # a shop, too, says what it cannot provide: that is declining after an apology alone
        r"(?:[^。\n]{0,20}?(?:お答え|お応え|回答|手伝い|手助け)"
        r"|(?:申し訳|すみません|残念ながら|恐れ入り)[^。\n]{0,60}?(?:提供|対応|支援|協力|作成|生成))"
        r"[^。\n]{0,14}?(?:でき(?:ません|かね)|出来(?:ません|かね)|いたしかね|致しかね|しかね|控え)",
    ),
    _declining_in(  # Chinese
        r"(?:很|非常|十分|真的)?(?:抱歉|对不起|遗憾|對不起|不好意思|恐怕)|请(?:您)?原谅"
        r"|作为(?:一个|一名)?(?:人工智能|ai|语言模型)",
        r"我(?:们)?(?:目前|暂时|现在|并)?(?:无法|不能|没法|不便|無法|沒法)[^。\n]{0,10}?"
        r"(?:提供|回答|协助|帮|满足|完成|执行|生成|讨论|给出|访问|看到|处理|继续|協助|幫|滿足)",
    ),
    _declining_in(  # Korean
        r"(?:정말 |대단히 )?(?:죄송|미안|유감|안타깝|송구|아쉽)(?:합니다)?"
        r"|(?:저는 )?(?:ai|인공지능)",
        r"(?:[^.\n]{0,24}?(?:답변|대답|도와|도움|도울|응답)"
        r"|(?:죄송|미안|유감|안타깝)[^\n]{0,60}?(?:제공|지원|작성|생성|수행|처리))"
        r"[^.\n]{0,14}?(?:수(?:는|가)? 없습니다|못합니다|어렵습니다)",
    ),
    _declining_in(  # Arabic
        r"(?:أنا )?(?:عذر|آسف|أعتذر|معذرة|للأسف|مع الأسف|يؤسفني|نأسف)|(?:بصفتي|كوني|كنموذج)",
        r"(?:لا|لن) (?:أستطيع|يمكنني|يمكننا|أقدر|أتمكن من) (?:\S+ ){0,2}?(?:ال)?"
        r"(?:مساعد|أساعد|إجاب|رد\b|تقديم|تلبي|توفير|إنشاء|كتاب|تنفيذ|مشارك|إعطاء)",
    ),
    _declining_in(  # Hindi
        r"(?:मुझे )?(?:माफ़|माफ|क्षमा|खेद|अफ़सोस|अफसोस|दुर्भाग्य)|मैं एक (?:ai|एआई)",
        r"मैं [^।\n]{0,60}?(?:मदद|सहायता|उत्तर|जवाब|प्रदान|जानकारी|पूरा)[^।\n]{0,16}?"
        r"(?:नहीं (?:कर|दे|हो)? ?(?:सक|पा)|असमर्थ)",
    ),
    _declining_in(  # Thai
        r"(?:ต้อง)?(?:ขออภัย|ขอโทษ|เสียใจ|น่าเสียดาย)|ใน?ฐานะ",
        r"(?:แต่)?(?:ผม|ฉัน|ดิฉัน|เรา)(?:ไม่สามารถ|ไม่อาจ)[^\n]{0,12}?"
        r"(?:ช่วย|ตอบ|ให้|ทำตาม|สร้าง|เขียน|ดำเนินการ|เข้าถึง)",
    ),
)
_REFUSAL = re.compile("|".join(_REFUSALS), re.IGNORECASE)
_OPENING = 300


def declining(text: str) -> str | None:
    """The phrase by which a text opens to decline, if it does.

    >>> declining("I'm sorry, but I can't help with that. Is there anything else?")
    "I'm sorry, but I can't help"
    >>> declining("I'm sorry for your loss. Nobody can help it."), declining("I can't wait!")
    (None, None)
    """
    found = _REFUSAL.match(" ".join(text[:_OPENING].split()))
    return found.group(0).strip() if found else None
