"""Language tags: BCP-47, normalised once at the edge.

A policy learns per language, so two spellings of one language must be one
key, and two languages that only look alike must stay two.
"""

from functools import lru_cache

import langcodes
from langcodes.tag_parser import LanguageTagError

from arbitrage.errors import InvalidPrompt

UNDETERMINED = "und"
"""The BCP-47 tag of a text whose language is not known."""

_PARENTS = {"nb": "no", "nn": "no"}
_LONGEST = 64  # characters; RFC 5646, 4.4.1, has 35 do for any tag that is registered


@lru_cache(maxsize=4096)
def normalise(tag: str) -> str:
    """Reduces a language tag to what a policy should tell apart.

    Region and variant go, and so does a script that the language is written
    in by default; deprecated and overlong codes are replaced.

    >>> [normalise(t) for t in ("zh-CN", "zh-Hans", "zh-TW", "pt_BR", "iw")]
    ['zh', 'zh', 'zh-Hant', 'pt', 'he']
    >>> [normalise(t) for t in ("nb", "sr-Latn", "cmn", "DE")]
    ['nb', 'sr-Latn', 'zh', 'de']
    >>> normalise("und")
    'und'

    Raises:
        InvalidPrompt: the tag is not a language that BCP-47 knows.
    """
    if tag == UNDETERMINED:
        return UNDETERMINED
    if len(tag) > _LONGEST:  # it would be parsed by recursion, once for each subtag
        message = f"is longer than {_LONGEST} characters; use a BCP-47 tag such as 'de'"
        raise InvalidPrompt("language", message)
    try:
        language = langcodes.Language.get(tag).prefer_macrolanguage()
    except LanguageTagError:
        language = None
    if language is None or not language.language or not language.is_valid():
        message = f"unknown language tag {tag!r}; use a BCP-47 tag such as 'de' or 'zh-Hant'"
        raise InvalidPrompt("language", message)
    subtag: str = language.language
    script = language.maximize().script
    default_script = langcodes.Language.make(language=subtag).maximize().script
    return subtag if script == default_script else f"{subtag}-{script}"


def parent(tag: str) -> str | None:
    """The normalised tag that `tag` is a special case of, if there is one.

    >>> [parent(t) for t in ("nb", "zh-Hant", "de")]
    ['no', 'zh', None]
    """
    if "-" in tag:
        return tag.split("-", maxsplit=1)[0]
    return _PARENTS.get(tag)


def same(left: str, right: str) -> bool:
    """Whether two normalised tags count as one language for a reader.

    >>> same("nb", "no"), same("zh-Hant", "zh"), same("nb", "nn"), same("de", "en")
    (True, True, True, False)
    """
    return (parent(left) or left) == (parent(right) or right)
