"""Which tokens are control tokens: those a tokenizer calls special, and the marks of turns.

Tokens that were added with ``add_tokens`` are not called special, though a template may open and
end turns with them: for a model they are control tokens all the same.
"""

import json
from typing import TYPE_CHECKING

from versatune.data.conversations import Messages
from versatune.data.fields import RejectedError
from versatune.data.own_templates import chat_templates
from versatune.data.prepared import THINK, THOUGHT
from versatune.data.templates import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAID = ("\ufdd6", "\ufdd7")
"""What is said in the tried conversation; noncharacters, so no token has them."""


def control_texts(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, ...]:
    """The texts of all control tokens, sorted."""
    added = tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special}
    maybe = {t.content for t in added if not t.special and _is_mark(t.content)}
    if maybe and tokenizer.chat_template:
        template, _ = chat_templates(tokenizer)
        names = {k: str(v) for k, v in tokenizer.special_tokens_map.items()}
        written = _around_turns(ChatTemplate(template, names, sorted(special)))
        special |= {text for text in maybe if text in written}
    return tuple(sorted(special))


def control_ids(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The ids of all control tokens: what is no part of what a text says."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return frozenset(vocabulary[text] for text in control_texts(tokenizer))


def as_json(tokenizer: "PreTrainedTokenizerBase", control: tuple[str, ...]) -> str:
    """The fast tokenizer as JSON, in which every control token is called special."""
    whole = tokenizer.backend_tokenizer.to_str()
    if {t.content for t in tokenizer.added_tokens_decoder.values() if t.special} == set(control):
        return str(whole)
    content = json.loads(whole)
    for token in content["added_tokens"]:
        token["special"] |= token["content"] in control
    return json.dumps(content, ensure_ascii=False)


def _is_mark(text: str) -> bool:
    """Whether an added token may be a mark: words, blanks and the tags of thoughts are none."""
    of_words = any(c.isalnum() or c.isspace() for c in text[:1] + text[-1:])
    return len(text) > 2 and text not in (THINK, THOUGHT) and not of_words


def _around_turns(template: ChatTemplate) -> str:
    """The template's own text in a conversation without thoughts and tools, and its prompt."""
    talk: Messages = [
        {"role": role, "content": said}
        for role, said in zip(("user", "assistant"), _SAID, strict=True)
    ]
    try:
        return template.text(talk * 2) + template.text(talk[:1], prompt=True)
    except RejectedError:
        return ""  # rows will say so
