"""Answers that gates are held against: one good answer in many languages."""

from __future__ import annotations

from arbitrage.types import Completion, Prompt

PROMPT = Prompt.of("Why does ice float?", language="en")
ICE = {
    "ar": "يطفو الجليد على الماء لأن كثافته أقل من كثافة الماء السائل.",
    "bs": "Led pluta na vodi jer mu je gustina manja od gustine tečne vode, i zato ostaje gore.",
    "da": "Is flyder på vand, fordi den har en lavere massefylde end flydende vand.",
    "de": "Eis schwimmt auf Wasser, weil es eine geringere Dichte hat als flüssiges Wasser.",
    "en": "Ice floats on water because it is less dense than the liquid water around it.",
    "hi": "बर्फ पानी पर तैरती है क्योंकि उसका घनत्व तरल पानी से कम होता है।",
    "hr": "Led pluta na vodi jer mu je gustoća manja od gustoće tekuće vode.",
    "id": "Es mengapung di atas air karena massa jenisnya lebih kecil daripada air.",
    "ja": "氷は液体の水よりも密度が小さいので、水に浮きます。",
    "ko": "얼음은 액체 상태의 물보다 밀도가 낮기 때문에 물에 뜹니다.",
    "ms": "Ais terapung di atas air kerana ketumpatannya lebih rendah daripada air.",
    "nb": "Is flyter fordi den har lavere tetthet enn vann, og derfor holder den seg oppe.",
    "nn": "Is flyt fordi han har lågare tettleik enn vatn, og difor held han seg oppe.",
    "ru": "Лёд плавает на воде, потому что его плотность меньше плотности жидкой воды.",
    "sr": "Лед плута на води зато што му је густина мања од густине течне воде.",
    "sr-Latn": "Led pluta na vodi zato što mu je gustina manja od gustine tečne vode.",
    "th": "น้ำแข็งลอยน้ำได้เพราะมีความหนาแน่นน้อยกว่าน้ำที่เป็นของเหลว",
    "zh": "冰的密度比液态水低，所以会浮在水面上。",
    "zh-Hant": "冰的密度比液態水低，所以會浮在水面上。",
}


def answer(text: str, finish_reason: str = "stop") -> Completion:
    return Completion(text, finish_reason)
