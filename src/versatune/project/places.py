"""Where a parameter is set: file and line, or the command line."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from kedro.config import OmegaConfigLoader

from versatune.params import did_you_mean, merged
from versatune.project.blocks import BLOCKS, Key, Problem

COMMAND_LINE = "--params"

GLOBALS = ("seed", "data", "reporting")
"""Keys of globals.yml that are known whether or not a file refers to them."""

_REFERENCE = re.compile(r"\$\{\s*(globals|runtime_params)\s*:\s*(\w+)")
_SUFFIXES = (".yml", ".yaml", ".json")


class Places:
    """The configuration files of a run: those of its environment, then those of the base."""

    def __init__(self, loader: OmegaConfigLoader) -> None:
        self._loader = loader
        source = Path(loader.conf_source)
        environments = (loader.env or loader.default_run_env, loader.base_env)
        self._folders = [source / name for name in dict.fromkeys(environments) if name]

    @property
    def are_known(self) -> bool:
        """Whether the configuration is a folder here (it can be an archive or remote)."""
        return any(folder.is_dir() for folder in self._folders)

    def of(self, key: Key, kind: str = "parameters") -> str:
        """The place of ``key``, or of the nearest block around it: ``conf/local/x.yml:3``.

        The first of those that set it, as they take precedence; "" when it is written nowhere.
        """
        depth, place = 0, ""
        if kind == "parameters":
            depth = _depth(self._loader.runtime_params or {}, key)
            place = COMMAND_LINE if depth else ""
        for file in self._files(kind):
            found, line = _line(file, key)
            if found > depth:
                depth, place = found, f"{shown(file)}:{line}"
        return place

    @cached_property
    def referred(self) -> dict[str, set[str]]:
        """Names that values refer to with ``${globals:NAME}`` and ``${runtime_params:NAME}``."""
        found: dict[str, set[str]] = {"globals": set(), "runtime_params": set()}
        for file in self._all_files():
            text = file.read_text(encoding="utf-8", errors="replace")
            for kind, name in _REFERENCE.findall(text):
                found[kind].add(name)
        return found

    def unknown_globals(self) -> Iterator[Problem]:
        """Keys of globals.yml that nothing uses."""
        known = {*GLOBALS, *self.referred["globals"]}
        for name in self._loader["globals"]:
            if name not in known and not name.startswith("_"):
                hint = did_you_mean(name, sorted(known))
                yield Problem((name,), f"nothing uses this key of globals.yml{hint}")

    def misshaped(self) -> Iterator[tuple[str, str]]:
        """Places and messages for files and keys that hold a list instead of a block, or a block
        instead of a list. Kedro's merge fails on them without saying where."""
        blocks: dict[str, Any] = {}
        for file in reversed(self._files("parameters")):
            content = _content(file)
            if content is not None and not isinstance(content, dict):
                yield shown(file), f"holds no keys with values, but a {type(content).__name__}"
                continue
            for key, is_list in _differences(blocks, content or {}):
                needed = "a block of keys with values" if is_list else "a list"
                where = f"{'.'.join(map(str, key))} ({shown(file)}:{_line(file, key)[1]})"
                yield where, f"{needed} is needed here"
            blocks = merged(blocks, content or {})

    def doubled(self) -> Iterator[tuple[str, str]]:
        """Places and messages for keys that appear twice in one block of a file."""
        for kind in ("parameters", "globals"):
            for file in self._files(kind):
                with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):
                    root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
                    for key, first, second in _doubles(root):
                        yield (
                            f"{shown(file)}:{second}",
                            f"{key} is already in line {first}: remove one of the two",
                        )

    def unread_files(self) -> Iterator[str]:
        """Messages for files with parameters whose name Kedro does not read."""
        read = {file for kind in self._loader.config_patterns for file in self._files(kind)}
        for file in self._all_files():
            if file in read:
                continue
            content = _content(file)
            blocks = BLOCKS.keys() & content.keys() if isinstance(content, dict) else set()
            if blocks:
                held = ", ".join(sorted(blocks))
                yield (
                    f"{shown(file)} holds parameters ({held}), but is not read: call it "
                    f"parameters_{file.stem}.yml."
                )

    def left_out(self) -> str | None:
        """The warning about parameters of the default environment when another one is used."""
        env, default = self._loader.env, self._loader.default_run_env
        if not default or env in (None, default):
            return None
        there = sorted((Path(self._loader.conf_source) / default).rglob("*"))
        held = {
            shown(file): sorted({*BLOCKS, *GLOBALS} & content.keys())
            for file in there
            if file.suffix in _SUFFIXES and isinstance(content := _content(file), dict)
        }
        named = [f"{file} ({', '.join(blocks)})" for file, blocks in held.items() if blocks]
        if not named:
            return None
        return (
            f"with --env {env}, conf/{env} takes the place of conf/{default}. Not read: "
            f"{', '.join(named)}. Copy what you need to conf/{env}."
        )

    def _files(self, kind: str) -> list[Path]:
        patterns = [
            f"{pattern}/*" if pattern.endswith("**") else pattern
            for pattern in self._loader.config_patterns[kind]
        ]
        return [
            file
            for folder in self._folders
            for file in sorted({file for pattern in patterns for file in folder.glob(pattern)})
            if file.suffix in _SUFFIXES and file.is_file()
        ]

    def _all_files(self) -> list[Path]:
        files = (file for folder in self._folders for file in sorted(folder.rglob("*")))
        return [f for f in files if f.suffix in _SUFFIXES and f.is_file() and f.name[0] != "."]


def shown(file: Path) -> str:
    """A file's path relative to the project's folder."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def _content(file: Path) -> Any:
    """What a YAML file holds; None when it can't be read: its reader reports the error."""
    with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    return None


def _differences(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> Iterator[tuple[Key, bool]]:
    """Keys that are a block in one mapping and a list in the other; whether ``after`` has it."""
    for name, value in after.items():
        old = before.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            yield from (((name, *key), which) for key, which in _differences(old, value))
        elif {type(old), type(value)} == {dict, list}:
            yield (name,), isinstance(value, list)


def _doubles(node: yaml.Node | None) -> Iterator[tuple[str, int, int]]:
    """Keys that a mapping has twice, with the lines of both; also in mappings inside it."""
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for name, value in node.value:
            line = name.start_mark.line + 1
            if isinstance(name, yaml.ScalarNode):
                if name.value in lines:
                    yield name.value, lines[name.value], line
                lines.setdefault(name.value, line)
            yield from _doubles(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _doubles(value)


def _depth(given: Any, key: Key) -> int:
    """How many parts of ``key`` are there in nested mappings and lists."""
    depth = 0
    for part in key:
        there = part in given if isinstance(given, Mapping) else False
        if isinstance(given, list) and isinstance(part, int):
            there = part < len(given)
        if not there:
            break
        given, depth = given[part], depth + 1
    return depth


def _line(file: Path, key: Key) -> tuple[int, int]:
    """How many parts of ``key`` are in a YAML file, and the line of the last of them."""
    with file.open(encoding="utf-8") as text:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    depth = line = 0
    for part in key:
        inside = None
        if isinstance(node, yaml.MappingNode):
            pairs = ((name, value) for name, value in node.value if name.value == str(part))
            name, inside = next(pairs, (None, None))
            mark = name.start_mark if name is not None else None
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            inside = node.value[part] if part < len(node.value) else None
            mark = inside.start_mark if inside is not None else None
        if inside is None:
            break
        assert mark is not None
        node, depth, line = inside, depth + 1, mark.line + 1
    return depth, line
