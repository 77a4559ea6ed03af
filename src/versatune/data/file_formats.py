"""How files of rows may be written: the one place where a format is registered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class FileFormat:
    """One way of writing rows."""

    family: str
    """Formats of one family may stand beside each other in a folder."""
    suffixes: tuple[str, ...]
    reader: str
    """``module:function`` of this package: called with the file and an :class:`Asked`, it yields
    the rows."""


@dataclass(frozen=True)
class Asked:
    """How a file is to be read."""

    split: str
    limit: int
    """Bytes of the longest line accepted."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The source's: field of the shape -> column of the file."""
    said: bool = False
    """Whether the source names its format; if not, the suffix decides."""


FORMATS = {
    "jsonl": FileFormat("JSON", (".jsonl", ".ndjson"), "readers:read_jsonl"),
    "json": FileFormat("JSON", (".json",), "readers:read_json_file"),
    "csv": FileFormat("CSV", (".csv",), "readers:read_csv"),
    "tsv": FileFormat("CSV", (".tsv", ".tab"), "readers:read_tsv"),
    "parquet": FileFormat("Parquet", (".parquet", ".pq"), "readers:read_parquet"),
    "dataset": FileFormat("data set", (), "readers:read_saved"),
    "text": FileFormat("text", (".txt", ".text", ".md", ".markdown", ".rst"), "readers:read_text"),
    "lines": FileFormat("text", (), "readers:read_documents"),
}
"""By the names that a source's ``format`` may have."""

if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[tuple(FORMATS)]
