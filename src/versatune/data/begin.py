"""The tokens that a model's texts begin with.

Documents, plain questions and samples begin alike: with what the tokenizer puts before a text
itself (a begin token, or several), or else with the begin token where the chat template writes it
once, at the beginning of a conversation (a template that writes it before every turn has made a
turn's mark of it).
"""

from typing import TYPE_CHECKING

import jinja2
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def begin_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The ids before the first token of a text; empty if texts begin without any.

    ``tokenizer``: a fast one. What it puts behind a text (an end token) is left out: a question
    must not be ended.
    """
    own = own_begin_tokens(tokenizer)
    return own or ([int(tokenizer.bos_token_id)] if _template_begins(tokenizer) else [])


def own_begin_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The ids that the tokenizer itself puts before a text."""
    raw = plain_tokenizer(tokenizer.backend_tokenizer.to_str())
    bare, whole = (raw.encode("a", add_special_tokens=added).ids for added in (False, True))
    starts = range(len(whole) - len(bare) + 1)
    at = next((i for i in starts if whole[i : i + len(bare)] == bare), 0)
    return list(whole[:at])


def plain_tokenizer(content: str) -> Tokenizer:
    """A fast tokenizer from its JSON, which neither cuts texts nor fills them up."""
    tokenizer = Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _template_begins(tokenizer: "PreTrainedTokenizerBase") -> bool:
    begin = tokenizer.bos_token
    if begin is None:
        return False
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        text = str(tokenizer.apply_chat_template(talk, tokenize=False))
    except (jinja2.TemplateError, ArithmeticError, RecursionError, TypeError, ValueError):
        return False  # a template that refuses conversations says nothing of documents
    return text.startswith(begin) and text.count(begin) == 1
