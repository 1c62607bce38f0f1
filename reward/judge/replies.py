"""What a judge has replied: a grade or a preference, or nothing that can be read.

Read are a JSON object, such an object in the only code fence of the reply, and the bare
value. A grade may be in the digits of any script. Nothing is searched for in prose.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from reward.judge.prompts import BETTER, SCORE

if TYPE_CHECKING:
    from arbitrage.types import Completion

_LONGEST = 65_536
_CUT_OFF = "length"
_FENCED = re.compile(r"```[a-zA-Z]*\s(.*?)```", re.DOTALL)
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}")
# a judge that writes Cyrillic may write these, too, in it
_SHARES = {"a": 1.0, "а": 1.0, "b": 0.0, "в": 0.0, "tie": 0.5}


def grade_in(reply: Completion, lowest: int, highest: int) -> int | None:
    """The grade of a reply; None for one that holds none on the scale.

    >>> from arbitrage.types import Completion
    >>> [grade_in(Completion(text), 1, 10) for text in ('{"score": 7}', "٧", "11", "about 7")]
    [7, 7, None, None]
    """
    grade = _whole_number(_value_in(reply, SCORE))
    return grade if grade is not None and lowest <= grade <= highest else None


def preference_in(reply: Completion) -> float | None:
    """A's share of the win: 1, 0, or 0.5 for a tie; None for a reply that holds no preference.

    >>> from arbitrage.types import Completion
    >>> [preference_in(Completion(text)) for text in ('{"better": "B"}', "tie", "Both are good")]
    [0.0, 0.5, None]
    """
    value = _value_in(reply, BETTER)
    return _SHARES.get(value.strip().casefold()) if isinstance(value, str) else None


def _value_in(reply: Completion, key: str) -> object:
    if len(reply.text) > _LONGEST:
        return None
    text = _FOREIGN_DIGIT.sub(lambda digit: str(int(digit[0])), reply.text).strip()
    fenced = _FENCED.findall(text)
    for part in (text, *fenced) if len(fenced) == 1 else (text,):
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value.get(key)
        text = value
        break
    # nobody can tell of a bare value that its end is missing: a 10 would be read as a 1
    return None if reply.finish_reason == _CUT_OFF else text


def _whole_number(value: object) -> int | None:
    match value:
        case bool():
            return None
        case int():
            return value
        case float():
            return int(value) if value.is_integer() else None
        case str():
            written = _WHOLE_NUMBER.fullmatch(value.strip())
            return int(written[0]) if written else None
        case _:
            return None
