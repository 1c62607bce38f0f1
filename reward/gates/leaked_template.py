"""The gates on what a chat template leaves behind: its tokens, its turns, its thinking tags.

None of them looks into code, nor stops what the prompt itself has or asks about.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from reward.gates.letters import outside_code

if TYPE_CHECKING:
    from arbitrage.types import Completion, Prompt

_TOKENS = re.compile(
    r"<[|｜][\w▁/ ]{1,40}[|｜]>"  # ChatML, Llama 3, Phi, Qwen, Cohere, DeepSeek, harmony
    r"|</?(?:start|end)_of_(?:turn|image|text)>"  # Gemma
    r"|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|BOS|EOS)\]"  # Mistral
    r"|<</?SYS>>"  # Llama 2
    r"|<(?:bos|eos|pad|unk|extra_id_\d+|unused\d+)>"
    r"|\[(?:gMASK|sop|eop)\]",
    re.IGNORECASE,
)
# strikes text through in HTML, and ends a sequence elsewhere
_END_OF_SEQUENCE = re.compile(r"<(/?)s>")
_HEADINGS = re.compile(
    r"^#{1,3} ?(?:Instructions?|Response|Input|Output|Human|User|Assistant|System"
    r"|指示|応答|入力) ?[:：]",
    re.IGNORECASE | re.MULTILINE,
)
# a line that goes on with the chat: the assistant's, or the user's with more than a value
_TURNS = re.compile(
    r"^ ?(?:\*\*)?(?:(?:Assistant|ASSISTANT|AI Assistant)(?:\*\*)? ?[:：]"
    r"|(?:User|USER|Human|HUMAN)(?:\*\*)? ?[:：](?:\*\*)?(?=\s*\Z|[^\n]{12}))",
    re.MULTILINE,
)
_ABOUT_TEMPLATES = re.compile(
    r"chat.?ml|chat.?template|special token|control token|prompt template|prompt format"
    r"|tokeni[sz]er|stop token|eos token|end.of.(?:text|sequence|turn)",
    re.IGNORECASE,
)
_ABOUT_DIALOGUES = re.compile(
    r"user|human|assistant|chat|dialog|conversa|interview|diálog|dialóg|роль|диалог|бесед|діалог"
    r"|розмов|会話|対話|ユーザー|对话|對話|用户|用戶|대화|사용자|حوار|محادثة|संवाद|बातचीत|บทสนทนา|สนทนา",
    re.IGNORECASE,
)
_THINKING = (
    r"(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad"
    r"|inner_monologue|chain_of_thought)"
)
_THINKING_TAGS = re.compile(
    rf"<(?P<closes>/)?{_THINKING}>|\[(?P<closes2>/)?THINK\]|◁(?P<closes3>/)?think▷"
    r"|<[|｜](?:begin|(?P<closes4>end))_of_(?:thought|solution)[|｜]>",
    re.IGNORECASE,
)


def leaked_template(prompt: Prompt, completion: Completion) -> str | None:
    """Has tokens or turns of a chat template in it."""
    text = outside_code(completion.text)
    found = _leak(text, prompt)
    return f"has {' '.join(found.split())!r} in it" if found else None


def unbalanced_reasoning(prompt: Prompt, completion: Completion) -> str | None:
    """Has tags of a model's thinking in it: what teachers part from answers was not parted."""
    text = outside_code(completion.text)
    tags = list(_THINKING_TAGS.finditer(text))
    if not tags or _THINKING_TAGS.search(_whole(prompt)):
        return None
    first, last = tags[0], tags[-1]
    if _closes(first):
        return f"closes {first.group()!r} without opening it"
    if not _closes(last):
        return f"opens {last.group()!r} and never closes it"
    return f"has {first.group()!r} in its answer"


def _leak(text: str, prompt: Prompt) -> str | None:
    """The first piece of a template in a text, which the prompt neither has nor asks about."""
    pieces = [piece.group() for kind in (_TOKENS, _HEADINGS) for piece in kind.finditer(text)]
    end, turn = _stray_end_of_sequence(text), _TURNS.search(text)
    if not (pieces or end or turn):
        return None  # as most: the prompt, which may be long, is not read
    asked = _whole(prompt)
    known = asked.casefold()
    if not _ABOUT_TEMPLATES.search(asked):
        for piece in pieces:
            if piece.casefold() not in known:
                return piece
        if end and not _END_OF_SEQUENCE.search(asked):
            return end
    return turn.group() if turn and not _ABOUT_DIALOGUES.search(asked) else None


def _stray_end_of_sequence(text: str) -> str | None:
    open_tags = 0
    for tag in _END_OF_SEQUENCE.finditer(text):
        open_tags += -1 if tag.group(1) else 1
        if open_tags < 0:
            return tag.group()
    return "<s>" if open_tags else None


def _closes(tag: re.Match[str]) -> bool:
    return any(tag.groups())


def _whole(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt.messages)
