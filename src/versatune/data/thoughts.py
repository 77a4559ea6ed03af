"""A thought before an answer: how a template writes it, and how it is read in a generated text."""

import re
from dataclasses import dataclass
from functools import cached_property

THOUGHT, CONTENT = "\ufdd5", "\ufdd4"
"""Stand-ins for a thought and a content; noncharacters, so no text has them."""
ANSWERS = (
    {"role": "assistant", "content": CONTENT, "reasoning_content": THOUGHT},
    {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n\n{CONTENT}"},
)
"""An answer with a thought, in the two ways in which rows hold one."""


@dataclass(frozen=True)
class Written:
    """A generated answer, read as the template writes answers."""

    content: str
    """Empty where a thought did not end."""
    lead: str | None = None
    """All before the content, as a rendered text has it; None for an answer without a thought."""
    ended: bool = True
    """Whether its thought ended, if it has one."""
    thought: str = ""
    """What was thought."""


@dataclass(frozen=True)
class Thought:
    """A template's text around a thought."""

    begin: str
    """From the prompt to the thought. Only blanks: the prompt itself opens it."""
    end: str
    """From the thought to the content."""
    control: re.Pattern[str]
    """The control tokens."""

    @classmethod
    def of(cls, answer: str, control: re.Pattern[str]) -> "Thought | None":
        """From the text behind a prompt; None where that does not show thought and content."""
        begin, shown, rest = answer.partition(THOUGHT)
        end, also, _ = rest.partition(CONTENT)
        return cls(begin, end, control) if shown and also and end.strip() else None

    @property
    def opened(self) -> bool:
        """Whether the prompt opens the thought."""
        return not self.begin.strip()

    @cached_property
    def _beginning(self) -> re.Pattern[str]:
        before = rf"(?:{self.control.pattern}|\s)*?"
        return re.compile(f"{before}({self._tolerant(self.begin)})" if not self.opened else "()")

    @cached_property
    def _ending(self) -> re.Pattern[str]:
        return re.compile(self._tolerant(self.end))

    def begins(self, text: str) -> bool:
        """Whether ``text``, or as much as was written of it, begins with a thought."""
        return self._beginning.match(text) is not None

    def read(self, text: str) -> Written | None:
        """None for a text that begins with no thought."""
        found = self._beginning.match(text)
        if found is None:
            return None
        blanks = self.begin[: len(self.begin) - len(self.begin.lstrip())]
        ends = list(self._ending.finditer(text, found.end()))
        if not ends:
            cut = text[found.start(1) :].rstrip()
            thought = text[found.end() :].strip()
            return Written("", blanks + cut + self.end, ended=False, thought=thought)
        content = text[ends[-1].end() :].lstrip("\n")
        lead = text[found.start(1) : len(text) - len(content)]
        thought = text[found.end() : ends[-1].start()].strip()
        return Written(content, blanks + lead, thought=thought)

    def _tolerant(self, text: str) -> str:
        """A pattern for ``text`` without regard to blanks, which tokenizers put beside tokens."""
        pieces = re.split(rf"({self.control.pattern})|\s+", text)
        return r"\s*".join(re.escape(piece) for piece in pieces if piece)
