"""Which chat templates a tokenizer brings."""

from typing import TYPE_CHECKING

from versatune.errors import VersatuneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chat_templates(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str | None]:
    """The tokenizer's chat template, and the one for rows with tools where it brings its own.

    A tokenizer may bring several under names: ``default`` counts, and ``tool_use`` with tools,
    as in ``apply_chat_template``. Raises VersatuneError when there is none, or no default.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        named = tokenizer.chat_template
        what = f"the chat templates {', '.join(sorted(named))}" if named else "no chat template"
        raise VersatuneError(
            f"{tokenizer.name_or_path}: its tokenizer has {what}"
            f"{' and none called default' if named else ''}; set tokenizer.chat_template to the "
            "one to train with and save the tokenizer."
        ) from error
    with_tools = tokenizer.get_chat_template(tools=[])
    return template, with_tools if with_tools != template else None
