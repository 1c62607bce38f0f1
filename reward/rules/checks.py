"""Checks of an untrusted text that may take forever or crash: run as a process of its own.

Says `{}` when it is ready. Then it reads one request a line, `{"check": ..., "rule": ...,
"text": ...}` as JSON, and answers with a line: `{"passed": true}`, or `{"error": "..."}` where the
rule itself is wrong. Code is compiled and never run. `checking.py` starts this file and ends it
when it takes too long.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import sys
import textwrap
import tomllib
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_MEMORY_BYTES = 2**30
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)")
_UNNAMED = ""


class RuleError(ValueError):
    """The rule that a text is held against is wrong."""


def matches(pattern: str, text: str) -> bool:
    """Whether a regular expression of Python's `re` is found anywhere in a text.

    Raises:
        RuleError: it is not a regular expression.
    """
    try:
        return re.search(pattern, text) is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise RuleError(f"is not a regular expression: {error}") from None


def fits_schema(schema: str, text: str) -> bool:
    """Whether a text, or its last fenced block, is JSON of a schema.

    Raises:
        RuleError: the schema is not one, or refers to what is not in it.
    """
    try:
        jsonschema: Any = import_module("jsonschema")
        referencing: Any = import_module("referencing.exceptions")
    except ImportError:
        raise RuleError("needs jsonschema; run: pip install jsonschema") from None
    try:
        rule = _json(schema)
        kind: Any = jsonschema.validators.validator_for(rule, jsonschema.Draft202012Validator)
        kind.check_schema(rule)
    except (ValueError, RecursionError) as error:
        raise RuleError(f"is not JSON: {error}") from None
    except (jsonschema.SchemaError, TypeError, AttributeError) as error:
        reason = getattr(error, "message", error)
        raise RuleError(f"is not a JSON schema: {reason}") from None
    # a registry of its own: a schema must not fetch others from the network
    validator = kind(rule, registry=jsonschema.validators.SPECIFICATIONS)
    try:
        return any(validator.is_valid(value) for value in _json_values(text))
    except (referencing.Unresolvable, re.error) as error:
        raise RuleError(f"cannot be used: {error}") from None


def compiles(language: str, text: str) -> bool:
    """Whether the code in a text compiles, and is more than a word.

    The fenced blocks of the language count, all of them; without one, those that name
    no language; without these, the whole text.

    Raises:
        RuleError: nothing here can compile the language.
    """
    compiler = _COMPILERS.get(_canonical(language))
    if compiler is None:
        known = ", ".join(sorted(_COMPILERS))
        raise RuleError(f"cannot be compiled here: {language!r}; known are {known}")
    blocks = _blocks(text, language)
    try:
        return all(compiler(block) for block in blocks)
    except (ValueError, SyntaxError, RecursionError, MemoryError, expat.ExpatError):
        return False


def _python(code: str) -> bool:
    tree = ast.parse(code)
    compile(code, "<answer>", "exec", dont_inherit=True)
    # a word alone is an expression, too
    return any(
        not (isinstance(step, ast.Expr) and isinstance(step.value, ast.Name | ast.Constant))
        for step in tree.body
    )


def _toml(code: str) -> bool:
    return bool(tomllib.loads(code))


def _xml(code: str) -> bool:
    expat.ParserCreate().Parse(code.strip(), True)
    return True


def _yaml(code: str) -> bool:
    try:
        yaml: Any = import_module("yaml")
    except ImportError:
        raise RuleError("needs PyYAML; run: pip install pyyaml") from None
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
        return isinstance(yaml.load(code, loader), dict | list)
    except yaml.YAMLError:
        return False


def _is_json(code: str) -> bool:
    _json(code)
    return True


def _json(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _json_values(text: str) -> list[Any]:
    """The JSON that a text is, or else that its last fenced block is."""
    blocks = [text, *(_blocks(text, "json")[-1:])]
    for block in blocks:
        with contextlib.suppress(ValueError, RecursionError):
            return [_json(block)]
    return []


def _blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, or those of none, or else the whole text."""
    blocks: dict[str, list[str]] = {}
    for label, code in _fenced(text):
        blocks.setdefault(_canonical(label), []).append(textwrap.dedent(code))
    return blocks.get(_canonical(language)) or blocks.get(_UNNAMED) or [text]


def _fenced(text: str) -> Iterator[tuple[str, str]]:
    """The label and the text of every fenced block; one that is never closed ends the text."""
    fence, label, lines = "", "", list[str]()
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if not fence and found:
            fence, label, lines = found[1], found[2], []
        elif found and found[1].startswith(fence) and line.strip() == found[1]:
            yield label, "".join(lines)
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        yield label, "".join(lines)


def _canonical(language: str) -> str:
    name = language.strip().lower()
    return _ALIASES.get(name, name)


_COMPILERS: Mapping[str, Callable[[str], bool]] = {
    "json": _is_json,
    "python": _python,
    "toml": _toml,
    "xml": _xml,
    "yaml": _yaml,
}
_ALIASES = {"py": "python", "python3": "python", "yml": "yaml", "svg": "xml"}
_CHECKS: Mapping[str, Callable[[str, str], bool]] = {
    "pattern": matches,
    "json_schema": fits_schema,
    "code": compiles,
}


def answer(request: str) -> dict[str, bool | str]:
    """The reply to one request."""
    asked = json.loads(request)
    try:
        return {"passed": _CHECKS[asked["check"]](asked["rule"], asked["text"])}
    except RuleError as error:
        return {"error": " ".join(str(error).split())[:300]}


def main() -> None:
    """Answers requests until the input ends."""
    warnings.simplefilter("ignore")  # what is odd in an answer's code is no business of ours
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415 - POSIX only

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _say({})
    for line in sys.stdin.buffer:
        _say(answer(line.decode("ascii")))


def _say(reply: Mapping[str, bool | str]) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
