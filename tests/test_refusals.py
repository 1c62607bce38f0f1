"""The refusal gate on answers that decline in 14 languages, and on those that only sound so."""

from __future__ import annotations

import pytest

from reward.gates import refusal
from tests.gated import ICE, PROMPT, answer

REFUSALS = """
I'm sorry, but I can't help with that.
I cannot answer this question.
**Sorry**, I am unable to provide that information.
As an AI language model, I cannot provide medical advice.
I apologize, but I cannot fulfill this request.
Unfortunately, I can’t assist with that.
Es tut mir leid, aber ich kann dir dabei nicht helfen.
Ich kann diese Frage leider nicht beantworten.
Leider kann ich keine Auskunft dazu geben.
Lo siento, pero no puedo ayudarte con eso.
No puedo responder a esa pregunta.
Je suis désolé, mais je ne peux pas vous aider.
Désolée, je ne peux pas répondre à cette question.
Sinto muito, mas não posso ajudar com isso.
Não posso responder a essa pergunta.
Mi dispiace, ma non posso aiutarti con questo.
Non sono in grado di rispondere a questa domanda.
К сожалению, я не могу вам помочь.
Извините, но я не могу ответить на этот вопрос.
На жаль, я не можу допомогти з цим.
Вибачте, я не можу відповісти на це питання.
申し訳ありませんが、お答えできません。
その質問にはお答えできません。
申し訳ありませんが、そのような内容を提供することはできません。
对不起，我无法回答这个问题。
抱歉，作为人工智能，我无法完成这个请求。
我无法提供医疗建议。
죄송합니다. 그 질문에는 답변할 수 없습니다.
죄송하지만 도와드릴 수 없습니다.
죄송하지만 그 정보는 제공할 수 없습니다.
عذرًا، لا أستطيع مساعدتك في ذلك.
آسف، لا يمكنني الإجابة على هذا السؤال.
माफ़ कीजिए, मैं इसमें आपकी मदद नहीं कर सकता।
क्षमा करें, मैं इस प्रश्न का उत्तर नहीं दे सकता।
ขออภัย ฉันไม่สามารถช่วยเรื่องนี้ได้
ขอโทษครับ ผมไม่สามารถตอบคำถามนี้ได้
""".strip().splitlines()
ORDINARY = """
I'm sorry for your loss. Grief takes time, and you can't rush it.
I am sorry to hear that you can't sleep. Try to go to bed at the same hour.
I can't wait to see you on Saturday!
I cannot recommend this book enough.
I can't help but smile when I think of it.
I won't give up on us.
Unfortunately, the train was late.
As an AI researcher, you will need statistics.
Ice floats. I'm sorry, but I can't help with the rest of it.
Es tut mir leid, dass du krank bist. Ruh dich aus.
Leider ist das nicht richtig: Die Hauptstadt ist Canberra.
Leider kann es dafür keine Garantie geben.
Lo siento mucho por tu pérdida.
No puedo creer lo bonito que es este lugar.
Désolé pour le retard ! Voici le plan.
Je ne peux pas m'empêcher de sourire.
Desculpe a demora. A resposta é 12.
Mi dispiace che tu non stia bene.
Non posso che consigliare questo ristorante.
К сожалению, это не так.
К сожалению, это не может быть правдой.
Я не могу дождаться лета.
На жаль, це не так.
На жаль, він не може прийти.
申し訳ありませんが、会議に遅れます。
すみませんが、駅はどこですか。
この店では返金に対応できません。
对不起，我迟到了。
我不能同意更多。
죄송합니다, 늦었습니다.
이 가게는 배달을 제공할 수 없습니다.
آسف على التأخير، إليك الخطة.
للأسف، هذا غير صحيح.
माफ़ कीजिए, मैं देर से आया।
ขออภัยในความล่าช้า นี่คือแผนงาน
""".strip().splitlines()


@pytest.mark.parametrize("text", REFUSALS)
def test_declining_to_answer_is_a_refusal(text: str) -> None:
    assert refusal(PROMPT, answer(text))
    assert refusal(PROMPT, answer(f"\n{text}\n\n{ICE['en']}"))


@pytest.mark.parametrize(
    "text",
    [
        "Sorry!",
        "Lo siento.",
        "Désolée !",
        "申し訳ありません。",
        "抱歉。",
        "죄송합니다.",
        "Извини...",
    ],
)
def test_an_apology_that_is_the_whole_answer_is_a_refusal(text: str) -> None:
    assert refusal(PROMPT, answer(text))
    assert not refusal(PROMPT, answer(f"{text} {ICE['en']}"))


@pytest.mark.parametrize("text", [*ORDINARY, *ICE.values()])
def test_an_apology_or_an_inability_alone_is_no_refusal(text: str) -> None:
    assert not refusal(PROMPT, answer(text))
