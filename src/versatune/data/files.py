"""Which files a source's ``path`` means, and how each of them is written."""

import glob
import logging
import re
from pathlib import Path, PurePath

from versatune.data.config import Source
from versatune.data.file_formats import FORMATS, Format
from versatune.data.streams import COMPRESSED
from versatune.errors import VersatuneError

logger = logging.getLogger(__name__)

SUFFIXES = {suffix: kind for kind, written in FORMATS.items() for suffix in written.suffixes}

_OTHERS = {
    (".zip", ".tar", ".tgz", ".7z", ".rar"): "unpack it",
    (".xlsx", ".xls", ".ods"): "save it as CSV",
    (".pdf", ".doc", ".docx", ".odt", ".html", ".htm", ".xml"): "convert it to text (.txt)",
    (".arrow", ".feather", ".orc", ".avro", ".db", ".sqlite", ".pkl"): "convert it to Parquet",
}
"""Suffixes of files that hold rows or texts and are not read -> what to do with them."""

_ABOUT = re.compile(
    r"(readme|licen[cs]e|notice|changelog|contributing|citation)"
    r"([._-](md|txt|rst|text|markdown|json|csv|cff|mit|bsd|gpl|cc|apache|[a-z]{2}|[\d.]+))*|"
    r"(dataset_infos?|state|dataset_dict|manifest)\.json",
    re.IGNORECASE,
)
"""Files that describe a data set and hold none of its rows: ``README.de.md``, not the document
``notice of termination.md``."""

_HUB_ID = re.compile(r"[\w-]+/[\w-]+(\.\d[\w.-]*)?")
_SHARD = re.compile(r"(?P<split>[\w.]+?)-\d{5}-of-\d{5}")
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Words in file names that name a split."""


def files_of(source: Source) -> list[tuple[Path, Format]]:
    """The files of a ``path`` source with their formats, globs and folders expanded, in name order.

    Of a folder that is no saved data set all data files below it are meant; where their names
    contain a split, only those of ``source.split``. Raises VersatuneError when nothing is there,
    when the format is unclear, or when a folder holds several formats or configurations.
    """
    assert source.path is not None
    path = Path(source.path)
    if path.exists():
        found = [path]
    else:
        # not Path.glob, which takes no absolute patterns
        found = sorted(Path(p) for p in glob.glob(source.path, recursive=True))  # noqa: PTH207
    if not found and "://" in source.path:
        raise VersatuneError(
            f"{source.path} is an address; files are read from disks. Download it first; a data "
            "set on the hub is given as {hub: owner/name}."
        )
    if not found:
        hub = f" (for one on the hub, give {{hub: {source.path}}})" * bool(
            _HUB_ID.fullmatch(source.path)
        )
        raise VersatuneError(f"{source.path}: there is no such file or folder{hub}.")
    files: dict[Path, Format] = {}  # a recursive glob finds a folder and its files
    for file in found:
        if not file.is_dir():
            files[file] = source.format or format_of(file)
        elif source.format == "dataset" or is_saved(file):
            files[file] = "dataset"
        else:
            files.update(_of_folder(file, source))
    return list(files.items())


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by ``datasets``' ``save_to_disk``."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def format_of(path: PurePath) -> Format:
    """How a file is written, by its suffix; a suffix of compression is left out first."""
    kind = _by_suffix(path)
    suffix = _without_compression(path).suffix.lower()
    for suffixes, what in _OTHERS.items():
        if suffix in suffixes:
            raise VersatuneError(f"{path}: {suffix} files can't be read; {what}.")
    if kind is None:
        raise VersatuneError(
            f"{path}: its suffix names no format; set the source's `format` to one of "
            f"{', '.join(sorted(FORMATS))}."
        )
    if kind == "parquet" and path.suffix.lower() in COMPRESSED:
        raise VersatuneError(f"{path}: a compressed Parquet file can't be read; decompress it.")
    return kind


def is_about(path: PurePath) -> bool:
    """Whether a file describes a data set and holds no rows of it."""
    return _ABOUT.fullmatch(path.name) is not None


def _by_suffix(path: PurePath) -> Format | None:
    return SUFFIXES.get(_without_compression(path).suffix.lower())


def _without_compression(path: PurePath) -> PurePath:
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


def _of_folder(folder: Path, source: Source) -> dict[Path, Format]:
    kinds: dict[Path, Format] = {}
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts) or is_about(file):
            continue
        if file.is_symlink() and not file.exists() and _by_suffix(inside):
            raise VersatuneError(
                f"{file} is a link to {file.readlink()}, which is not there: fetch that (in a hub "
                "clone with `git lfs pull` or `hf download`), or remove the link."
            )
        if file.is_file() and (kind := _by_suffix(inside)):
            kinds[file] = kind
    if source.format is not None:
        family = FORMATS[source.format].family
        kinds = {f: source.format for f, k in kinds.items() if FORMATS[k].family == family}
    elif any(kind != "text" for kind in kinds.values()):
        kinds = {file: kind for file, kind in kinds.items() if kind != "text"}
    if not kinds:
        raise VersatuneError(
            f"{folder}: neither a saved data set nor a folder with data files below it "
            f"({', '.join(SUFFIXES)}); name the files with a glob, and their `format`."
        )
    families = sorted({FORMATS[kind].family for kind in kinds.values()})
    if len(families) > 1:
        raise VersatuneError(
            f"{folder} holds files of several formats ({', '.join(families)}), perhaps the same "
            "rows twice; set the source's `format`, or name the files with a glob."
        )
    chosen = _of_split(folder, list(kinds), source.split)
    places = sorted({str(f.parent) for f in chosen if _SHARD.match(f.name)})
    if len(places) > 1:
        raise VersatuneError(
            f"{folder} holds several configurations of a data set ({', '.join(places)}); give the "
            "folder of one as `path`, and others as sources of their own."
        )
    return {file: kinds[file] for file in chosen}


def _of_split(folder: Path, files: list[Path], split: str) -> list[Path]:
    wanted = SPLITS.get(split.lower(), split)
    if any(_by_suffix(file) == "text" for file in files):
        return files  # a document's name is its title
    told = {file: _split_of(file.relative_to(folder)) for file in files}
    if wanted == "train" and len(names := set(told.values())) == 1 and _is_no_split(names.pop()):
        return files
    chosen = [file for file in files if told[file] == wanted]
    if not chosen and wanted == "train":
        chosen = [file for file in files if told[file] is None]
    if not chosen:
        there = sorted({name for name in told.values() if name})
        splits = (
            f"its splits are {', '.join(there)}" if there else "its files' names contain no split"
        )
        raise VersatuneError(
            f"{folder} has no split {split!r}; {splits}. Set the source's `split`, or name the "
            "files with a glob."
        )
    if left := [file for file in files if file not in chosen]:
        logger.log(
            logging.WARNING if any(told[file] is None for file in left) else logging.INFO,
            "%s: read %d file%s of the split %r and left out %d (%s%s). To read others, set the "
            "source's `split`, or name the files with a glob.",
            folder,
            len(chosen),
            "" if len(chosen) == 1 else "s",
            split,
            len(left),
            left[0].relative_to(folder),
            "" if len(left) == 1 else ", ...",
        )
    return chosen


def _is_no_split(name: str | None) -> bool:
    """Whether a name of shards contains no split, as ``data-00000-of-00002.parquet``."""
    return name is not None and SPLITS.keys().isdisjoint(_words(name))


def _words(name: str) -> list[str]:
    return re.split(r"[^a-z]+", name.lower())


def _split_of(file: PurePath) -> str | None:
    """The split in a file's name, or else in the names of its folders."""
    if shard := _SHARD.match(file.name):
        name = shard["split"]
        return SPLITS.get(name.lower(), name)
    for part in reversed(file.parts):
        for word in _words(part):
            if word in SPLITS:
                return SPLITS[word]
    return None
