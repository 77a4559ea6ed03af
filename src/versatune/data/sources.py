"""Finds the files that the configuration names before any work starts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from versatune.artifacts import file_digest, folder_digest, read_json
from versatune.data.config import DomainConfig, Source
from versatune.data.file_formats import Format
from versatune.data.files import files_of
from versatune.errors import VersatuneError


@dataclass(frozen=True)
class Origin:
    """A source with the files it was resolved to (none for a hub source)."""

    source: Source
    files: tuple[tuple[Path, Format], ...]

    def inputs(self) -> dict[str, Any]:
        """The fingerprint of the rows of this source: its settings and its files' content."""
        return {
            # A stream has the same rows.
            **self.source.model_dump(mode="json", exclude={"streaming", "own"}),
            "files": {
                str(path): folder_digest(path) if path.is_dir() else file_digest(path)
                for path, _ in self.files
            },
        }


@dataclass(frozen=True)
class DomainFiles:
    """All that is read for one domain."""

    config: DomainConfig
    origins: list[Origin]
    evaluation: list[Path]

    def inputs(self) -> dict[str, Any]:
        """The fingerprint of the domain's data: all but its description and its tasks' names."""
        return {
            "sources": [origin.inputs() for origin in self.origins],
            "evaluation": [file_digest(path) for path in self.evaluation],
            "validation_fraction": self.config.validation_fraction,
            "max_rows": self.config.max_rows,
        }


def locate(domains: Mapping[str, DomainConfig]) -> dict[str, DomainFiles]:
    """Find every file of every domain. Raises one VersatuneError that names all faults."""
    faults: list[str] = []
    found = {}
    for name, config in domains.items():
        origins = []
        for source in config.sources:
            if source.own:
                continue  # written by the base model, once it has been probed
            try:
                files = files_of(source) if source.path is not None else []
            except VersatuneError as error:
                faults.append(f"domains.{name}.sources: {error}")
            else:
                origins.append(Origin(source, tuple(files)))
                faults += [f"domains.{name}.sources: {e}" for p, _ in files for e in _escapes(p)]
        evaluation = [Path(item.path) for item in config.evaluation]
        faults += [
            f"domains.{name}.evaluation: {path}: there is no such file."
            for path in evaluation
            if not path.is_file()
        ]
        found[name] = DomainFiles(config, origins, evaluation)
    if faults:
        raise VersatuneError("\n".join(faults))
    return found


def _escapes(path: Path) -> Iterator[str]:
    """The error for a saved data set that refers to files outside its folder."""
    for state in sorted(path.rglob("state.json")):
        try:
            names = [str(file["filename"]) for file in read_json(state)["_data_files"]]
        except (VersatuneError, KeyError, TypeError):
            continue  # damaged: reported when it is read
        for name in names:
            if Path(name).name != name:
                yield f"{state} names {name!r}, which lies outside its folder."
