"""Where a prompt belongs: the finest thing that rewards are learned for by themselves."""

from __future__ import annotations

from router.experience.families import family

Leaf = tuple[str, str]
"""A language, and in it `=math` for a domain, `#3` for a prompt type, or '' for neither."""

Group = tuple[str, ...]
"""What prompts have in common: a kind of thing, and which it is."""

_DOMAIN, _TYPE = "=", "#"


def leaf_of(language: str, domain: str | None, kind: int | None = None) -> Leaf:
    """The leaf of a prompt, whose type plays the domain where it has none.

    >>> leaf_of("de", "math", 3), leaf_of("de", None, 3), leaf_of("de", None)
    (('de', '=math'), ('de', '#3'), ('de', ''))
    """
    if domain:
        return (language, _DOMAIN + domain)
    return (language, "" if kind is None else f"{_TYPE}{kind}")


def groups_of(leaf: Leaf) -> tuple[Group, Group, Group, Group, Group]:
    """Those it belongs to: itself, its domain or type, its language, its family, all.

    >>> groups_of(("de", "=math"))
    (('leaf', 'de', '=math'), ('within', '=math'), ('language', 'de'), ('family', 'germanic'), ())
    """
    language, within = leaf
    return (
        ("leaf", language, within),
        ("within", within),
        ("language", language),
        ("family", family(language)),
        (),
    )


def untyped(leaf: Leaf) -> Leaf:
    """The leaf without its prompt type.

    >>> untyped(("de", "#3")), untyped(("de", "=math"))
    (('de', ''), ('de', '=math'))
    """
    language, within = leaf
    return (language, "" if within.startswith(_TYPE) else within)
