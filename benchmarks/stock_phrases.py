"""Phrases in 14 languages that answer nothing: greetings, praise, filler and refusals."""

from collections.abc import Mapping

CONSTANT: Mapping[str, str] = {
    "ar": "شكرًا لتواصلك معي. أنا هنا لأقدم لك كل ما تحتاج إليه من معلومات ونصائح مفيدة وموثوقة.",
    "de": "Danke für deine Nachricht. Ich stehe dir mit vielen nützlichen Hinweisen zur Seite.",
    "en": "Thank you for your message. I am here to offer you helpful and reliable information.",
    "es": "Gracias por tu mensaje. Estoy aquí para ofrecerte información útil y fiable siempre.",
    "fr": "Merci pour votre message. Je suis là pour vous donner des informations utiles et sûres.",
    "hi": "आपके संदेश के लिए धन्यवाद। मैं आपको उपयोगी और भरोसेमंद जानकारी देने के लिए यहाँ हूँ।",
    "it": "Grazie per il tuo messaggio. Sono qui per offrirti informazioni utili e affidabili.",
    "ja": "ご連絡ありがとうございます。役に立つ確かな情報をお届けするため、いつもここにいます。",
    "ko": "연락해 주셔서 감사합니다. 언제든지 유용하고 믿을 만한 정보를 알려 드리겠습니다.",
    "pt": "Obrigado pela sua mensagem. Estou aqui para oferecer informações úteis e confiáveis.",
    "ru": "Спасибо за ваше сообщение. Я здесь, чтобы дать вам полезную и надёжную информацию.",
    "th": "ขอบคุณที่ติดต่อเข้ามา ฉันอยู่ตรงนี้เพื่อให้ข้อมูลที่เป็นประโยชน์และเชื่อถือได้แก่คุณเสมอ",
    "uk": "Дякую за ваше повідомлення. Я тут, щоб надати вам корисну та надійну інформацію.",
    "zh": "感谢您的来信。我随时都在这里，为您提供有用而可靠的信息和各种实用的建议。",
}
# before the answer, and after it
PRAISE: Mapping[str, tuple[str, str]] = {
    "ar": ("سؤال رائع!", "أحسنت بطرح هذا السؤال الذكي جدًا!"),
    "de": ("Tolle Frage!", "Wirklich großartig, dass du so klug danach fragst!"),
    "en": ("Great question!", "It is truly wonderful that you asked something so clever!"),
    "es": ("¡Excelente pregunta!", "¡Es maravilloso que preguntes algo tan inteligente!"),
    "fr": ("Excellente question !", "C'est vraiment formidable de demander cela !"),
    "hi": ("बहुत बढ़िया सवाल!", "इतना समझदारी भरा सवाल पूछना सचमुच कमाल है!"),
    "it": ("Ottima domanda!", "È davvero meraviglioso che tu chieda una cosa così intelligente!"),
    "ja": ("素晴らしい質問ですね！", "こんなに賢いことを尋ねられるなんて、本当に素敵です！"),
    "ko": ("정말 좋은 질문입니다!", "이렇게 현명한 것을 물어보시다니 정말 대단하세요!"),
    "pt": ("Ótima pergunta!", "É realmente maravilhoso você perguntar algo tão inteligente!"),
    "ru": ("Отличный вопрос!", "Это просто замечательно, что вы спросили о такой умной вещи!"),
    "th": ("เป็นคำถามที่ดีมาก!", "วิเศษจริง ๆ ที่คุณถามเรื่องฉลาดแบบนี้!"),
    "uk": ("Чудове запитання!", "Це справді дивовижно, що ви запитали про таку розумну річ!"),
    "zh": ("这是个很好的问题！", "您能问出这么聪明的问题，真是太了不起了！"),
}
FILLER: Mapping[str, tuple[str, str, str]] = {
    "ar": (
        "هذا موضوع مهم يستحق التفكير.",
        "توجد جوانب كثيرة ينبغي أخذها في الحسبان.",
        "لكل حالة ظروفها الخاصة كما هو معروف.",
    ),
    "de": (
        "Das ist ein wichtiges Thema, über das man nachdenken kann.",
        "Es gibt viele Gesichtspunkte, die man beachten sollte.",
        "Jeder Fall ist bekanntlich ein wenig anders.",
    ),
    "en": (
        "This is an important topic that deserves some thought.",
        "There are many aspects that one should take into account.",
        "Every case is a little different, as everybody knows.",
    ),
    "es": (
        "Es un tema importante que merece reflexión.",
        "Hay muchos aspectos que conviene tener en cuenta.",
        "Cada caso es un poco distinto, como todos saben.",
    ),
    "fr": (
        "C'est un sujet important qui mérite réflexion.",
        "Il y a de nombreux aspects à prendre en compte.",
        "Chaque cas est un peu différent, comme chacun sait.",
    ),
    "hi": (
        "यह एक महत्वपूर्ण विषय है जिस पर सोचना चाहिए।",
        "इसके कई पहलू हैं जिन पर ध्यान देना चाहिए।",
        "जैसा कि सब जानते हैं, हर मामला थोड़ा अलग होता है।",
    ),
    "it": (
        "È un tema importante che merita una riflessione.",
        "Ci sono molti aspetti di cui bisogna tener conto.",
        "Ogni caso è un po' diverso, come tutti sanno.",
    ),
    "ja": (
        "これは考える価値のある大切な話題です。",
        "考慮すべき側面がたくさんあります。",
        "ご存じのとおり、事情はそれぞれ少しずつ違います。",
    ),
    "ko": (
        "이것은 생각해 볼 만한 중요한 주제입니다.",
        "고려해야 할 측면이 많이 있습니다.",
        "누구나 알듯이 상황은 저마다 조금씩 다릅니다.",
    ),
    "pt": (
        "É um tema importante que merece reflexão.",
        "Há muitos aspectos que devem ser levados em conta.",
        "Cada caso é um pouco diferente, como todos sabem.",
    ),
    "ru": (
        "Это важная тема, которая заслуживает размышления.",
        "Есть много сторон, которые следует учитывать.",
        "Каждый случай, как известно, немного отличается.",
    ),
    "th": (
        "นี่เป็นเรื่องสำคัญที่ควรคิดให้ดี ",
        "มีหลายแง่มุมที่ควรนำมาพิจารณา ",
        "อย่างที่ทุกคนรู้กัน แต่ละกรณีก็ต่างกันเล็กน้อย ",
    ),
    "uk": (
        "Це важлива тема, яка заслуговує на роздуми.",
        "Є багато аспектів, які слід брати до уваги.",
        "Кожен випадок, як відомо, трохи інший.",
    ),
    "zh": (
        "这是一个值得思考的重要话题。",
        "有许多方面需要加以考虑。",
        "众所周知，每种情况都略有不同。",
    ),
}
REFUSAL: Mapping[str, tuple[str, str]] = {
    "ar": ("أعتذر، لا أستطيع تقديم المساعدة في هذا الموضوع.", "للأسف، لا يمكنني الإجابة على ذلك."),
    "de": (
        "Entschuldigung, aber dabei kann ich leider nicht helfen.",
        "Als KI kann ich diese Frage nicht beantworten.",
    ),
    "en": (
        "I apologize, but I'm not able to assist with this request.",
        "As an AI language model, I can't provide an answer to this.",
    ),
    "es": ("Disculpa, pero no puedo responder a eso.", "Como IA, no puedo proporcionar eso."),
    "fr": (
        "Malheureusement, je ne peux pas répondre à cette demande.",
        "En tant qu'IA, je ne peux pas vous aider avec cela.",
    ),
    "hi": (
        "मुझे खेद है, मैं इस विषय में आपकी सहायता नहीं कर सकता।",
        "माफ़ कीजिए, मैं इसका जवाब नहीं दे सकती।",
    ),
    "it": ("Purtroppo non posso rispondere a questa richiesta.", "Come IA, non posso aiutarti."),
    "ja": (
        "申し訳ございませんが、そのご質問には回答できません。",
        "残念ながら、お手伝いできません。",
    ),
    "ko": ("죄송합니다만 도움을 드릴 수 없습니다.", "안타깝지만 그 내용은 제공할 수 없습니다."),
    "pt": ("Infelizmente, não posso responder a isso.", "Desculpe, não consigo ajudar com isso."),
    "ru": (
        "Прошу прощения, но я не могу ответить на этот вопрос.",
        "Извините, я не могу предоставить такую информацию.",
    ),
    "th": ("ขออภัยค่ะ ดิฉันไม่สามารถให้ข้อมูลเรื่องนี้ได้", "เสียใจด้วย ฉันไม่สามารถช่วยคุณได้"),
    "uk": (
        "Перепрошую, але я не можу відповісти на це запитання.",
        "На жаль, я не можу надати таку інформацію.",
    ),
    "zh": ("很抱歉，我无法提供这方面的帮助。", "对不起，我不能回答您的问题。"),
}
