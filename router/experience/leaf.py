"""Where a prompt belongs: the finest thing that rewards are learned for by themselves."""

from __future__ import annotations

Leaf = tuple[str, str]
"""A language, and in it `=math` for a domain, `#3` for a prompt type, or '' for neither."""

_DOMAIN, _TYPE = "=", "#"


def leaf_of(language: str, domain: str | None, kind: int | None = None) -> Leaf:
    """The leaf of a prompt, whose type plays the domain where it has none.

    >>> leaf_of("de", "math", 3), leaf_of("de", None, 3), leaf_of("de", None)
    (('de', '=math'), ('de', '#3'), ('de', ''))
    """
    if domain:
        return (language, _DOMAIN + domain)
    return (language, "" if kind is None else f"{_TYPE}{kind}")


def untyped(leaf: Leaf) -> Leaf:
    """The leaf without its prompt type.

    >>> untyped(("de", "#3")), untyped(("de", "=math"))
    (('de', ''), ('de', '=math'))
    """
    language, within = leaf
    return (language, "" if within.startswith(_TYPE) else within)
