"""Prompts that ask for another language: five in each of 14 languages, and those that do not."""

from __future__ import annotations

import pytest
from corpus import questions

from arbitrage.types import Prompt
from reward.gates.requested_language import requested
from reward.gates.wrong_language import WrongLanguage
from reward.language import Detector
from tests.gated import answer

# of each language: the language asked for, and the prompt
ASKING = {
    "ar": """
        en ترجم إلى الإنجليزية: أين تقع المحطة؟
        fr اكتب رسالة قصيرة بالفرنسية إلى جارتي
        de كيف أقول «صباح الخير يا صديقي» باللغة الألمانية؟
        es أجب بالإسبانية من فضلك: ما عاصمة بيرو؟
        zh أريد ترجمة هذه الجملة إلى الصينية: أحب القراءة""",
    "de": """
        en Übersetze ins Englische: Wo ist der Bahnhof?
        fr Schreib bitte eine kurze Nachricht auf Französisch an meine Nachbarin.
        ja Wie lautet die japanische Übersetzung von „Ich lese gern“?
        es Antworte auf Spanisch: Was ist die Hauptstadt von Peru?
        ru Kannst du diesen Satz ins Russische übertragen? „Heute regnet es.“""",
    "en": """
        de Translate to German: Where is the station?
        fr Write a short message in French to my neighbour.
        ja How would I say "I love reading in the evening" in Japanese?
        es Please answer in Spanish: what is the capital of Peru?
        zh I need a Chinese translation of this sentence: it is raining today.""",
    "es": """
        en Traduce al inglés: ¿dónde está la estación?
        fr Escribe un mensaje corto en francés para mi vecina.
        de ¿Cómo se dice «me gusta leer por la noche» en alemán?
        it Responde en italiano, por favor: ¿cuál es la capital de Perú?
        ru Necesito la traducción al ruso de esta frase: hoy llueve.""",
    "fr": """
        en Traduis en anglais : où se trouve la gare ?
        es Écris un court message en espagnol à ma voisine.
        de Comment dit-on « j'aime lire le soir » en allemand ?
        it Réponds en italien, s'il te plaît : quelle est la capitale du Pérou ?
        ja Donne-moi la traduction japonaise de cette phrase : il pleut.""",
    "hi": """
        en अंग्रेज़ी में अनुवाद कीजिए: स्टेशन कहाँ है?
        fr मेरी पड़ोसन के लिए फ्रेंच में एक छोटा संदेश लिखिए।
        de "मुझे शाम को पढ़ना पसंद है" को जर्मन में कैसे कहते हैं?
        es कृपया स्पेनिश में उत्तर दीजिए: पेरू की राजधानी क्या है?
        ja इस वाक्य का जापानी अनुवाद चाहिए: आज बारिश हो रही है।""",
    "it": """
        en Traduci in inglese: dov'è la stazione?
        fr Scrivi un breve messaggio in francese alla mia vicina.
        de Come si dice «mi piace leggere la sera» in tedesco?
        es Rispondi in spagnolo, per favore: qual è la capitale del Perù?
        zh Mi serve la traduzione in cinese di questa frase: oggi piove.""",
    "ja": """
        en 次の文を英語に翻訳してください。「駅はどこですか。」
        fr 隣の人への短いメッセージをフランス語で書いてください。
        de 「夜に本を読むのが好きです」はドイツ語で何と言いますか？
        es スペイン語で答えてください。ペルーの首都はどこですか？
        zh この文の中国語訳をお願いします：今日は雨です。""",
    "ko": """
        en 영어로 번역해 주세요: 역이 어디에 있나요?
        fr 이웃에게 보낼 짧은 메시지를 프랑스어로 써 주세요.
        de "저녁에 책 읽는 것을 좋아해요"를 독일어로 어떻게 말하나요?
        es 스페인어로 대답해 주세요: 페루의 수도는 어디인가요?
        ja 이 문장의 일본어 번역을 부탁합니다: 오늘은 비가 옵니다.""",
    "pt": """
        en Traduza para o inglês: onde fica a estação?
        fr Escreva uma mensagem curta em francês para a minha vizinha.
        de Como se diz "gosto de ler à noite" em alemão?
        it Responda em italiano, por favor: qual é a capital do Peru?
        ja Preciso da tradução desta frase para o japonês: hoje está chovendo.""",
    "ru": """
        en Переведи на английский: где находится вокзал?
        fr Напиши короткое сообщение соседке по-французски.
        de Как сказать «я люблю читать по вечерам» на немецком?
        es Ответь, пожалуйста, на испанском языке: какая столица у Перу?
        zh Мне нужен перевод этого предложения на китайский: сегодня идёт дождь.""",
    "th": """
        en แปลเป็นภาษาอังกฤษ: สถานีอยู่ที่ไหน
        fr เขียนข้อความสั้น ๆ ถึงเพื่อนบ้านเป็นภาษาฝรั่งเศส
        de "ฉันชอบอ่านหนังสือตอนเย็น" พูดเป็นภาษาเยอรมันว่าอย่างไร
        es ช่วยตอบเป็นภาษาสเปน: เมืองหลวงของเปรูคืออะไร
        ja ขอคำแปลภาษาญี่ปุ่นของประโยคนี้: วันนี้ฝนตก""",
    "uk": """
        en Переклади англійською: де вокзал?
        fr Напиши коротке повідомлення сусідці французькою.
        de Як сказати «я люблю читати ввечері» німецькою мовою?
        es Відповідай, будь ласка, іспанською: яка столиця Перу?
        pl Потрібен переклад цього речення польською: сьогодні йде дощ.""",
    "zh": """
        en 请翻译成英文：车站在哪里？
        fr 请用法语给我的邻居写一条简短的留言。
        de “我喜欢晚上看书”用德语怎么说？
        es 请用西班牙语回答：秘鲁的首都是哪里？
        ja 我需要这句话的日文翻译：今天下雨。""",
}
POLISH = "Lód pływa po wodzie, ponieważ ma mniejszą gęstość niż woda w stanie ciekłym."
PROMPTS = [
    (language, *line.strip().split(" ", 1))
    for language, lines in ASKING.items()
    for line in lines.strip().splitlines()
]


def written_in(language: str) -> str:
    return POLISH if language == "pl" else questions()[language][0].answer


@pytest.fixture(scope="module")
def gate() -> WrongLanguage:
    return WrongLanguage(Detector())


def test_every_language_asks_five_times() -> None:
    assert sorted(ASKING) == list(questions())
    assert {len(lines.strip().splitlines()) for lines in ASKING.values()} == {5}


@pytest.mark.parametrize(("language", "target", "text"), PROMPTS)
def test_an_answer_is_in_the_language_asked_for_or_stopped(
    gate: WrongLanguage, language: str, target: str, text: str
) -> None:
    prompt = Prompt.of(text, language=language)
    assert not gate(prompt, answer(written_in(target)))
    assert not gate(prompt, answer(written_in(language)))
    third = [tag for tag in questions() if tag not in {language, target}]
    assert [tag for tag in third if not gate(prompt, answer(written_in(tag)))] == []


@pytest.mark.parametrize("language", questions())
def test_questions_that_speak_of_languages_ask_for_none(language: str) -> None:
    """Of "learn-language" in each language, and of all the others."""
    for question in questions()[language]:
        request = requested(Prompt.of(question.prompt, language=language))
        assert not request.languages, question.prompt
        assert not request.translates, question.prompt


def test_a_translation_into_an_unnamed_language_may_be_in_any(gate: WrongLanguage) -> None:
    prompt = Prompt.of("Übersetze bitte: „The weather is fine today.“", language="de")
    assert not gate(prompt, answer(written_in("fr")))


def test_a_translation_into_a_language_whose_name_is_unknown_here_passes(
    gate: WrongLanguage,
) -> None:
    prompt = Prompt.of("Translate this English sentence into Swahili: ...", language="en")
    swahili = "Barafu huelea juu ya maji kwa sababu msongamano wake ni mdogo kuliko wa maji."
    assert not gate(prompt, answer(swahili))
    assert gate(prompt, answer(written_in("ru")))


def test_the_instruction_may_be_in_another_language_than_its_text(gate: WrongLanguage) -> None:
    text = f"Summarise this text in one sentence.\n\n{written_in('ja')}"
    assert not gate(Prompt.of(text, language="ja"), answer(written_in("en")))
    assert gate(Prompt.of(text, language="ja"), answer(written_in("ru")))


def test_a_text_to_correct_stays_in_its_language(gate: WrongLanguage) -> None:
    mistaken = "She didn't remembre where is her purse, so I thinks it are in the car."
    prompt = Prompt.of(f"修改以下段落，纠正任何语法错误：\n{mistaken}", language="zh")
    corrected = "She didn't remember where her purse was, so I think it is in the car."
    assert not gate(prompt, answer(corrected))
    assert gate(prompt, answer(written_in("fr")))
    summary = Prompt.of(
        f"请概括：\n{mistaken}\n一句话就够了。谢谢你的帮助，非常感谢。", language="zh"
    )
    assert gate(summary, answer(corrected))


def test_the_system_may_ask_for_a_language_once_for_all(gate: WrongLanguage) -> None:
    messages = [
        {"role": "system", "content": "Always answer in English."},
        {"role": "user", "content": "Warum schwimmt Eis?"},
    ]
    assert not gate(Prompt.of(messages, language="de"), answer(written_in("en")))
    assert gate(Prompt.of(messages, language="de"), answer(written_in("fr")))


def test_words_of_a_language_that_is_spoken_of_pass_and_its_sentences_do_not(
    gate: WrongLanguage,
) -> None:
    prompt = Prompt.of("Nenne drei schwierige englische Wörter.", language="de")
    assert not gate(prompt, answer("- thoroughly\n- conscientious\n- otherworldly thoughts"))
    assert gate(prompt, answer(written_in("en")))
