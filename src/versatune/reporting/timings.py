"""Seconds of the steps of a run, and of the steps that it kept from earlier runs.

The file holds ``run`` (the latest run: ``id``, ``began``, ``command``) and ``steps``: by name the
``seconds`` of its latest call, the ``run`` that made this call, and ``made_seconds``, what the step
took when it last did its work. A step that found its work done took no time of this kind.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from versatune.artifacts import now, read_json, write_json
from versatune.errors import VersatuneError


def begin(path: Path, run: str, command: str) -> None:
    """Note that a run begins; the steps of earlier runs stay."""
    about = {"id": run, "began": now(), "command": command}
    write_json(path, {"run": about, "steps": _read(path).get("steps", {})})


def note(path: Path, run: str, step: str, seconds: float, *, kept: bool) -> None:
    """Note a finished step; ``kept``: it found its work done by an earlier run."""
    found = _read(path)
    steps = found.get("steps", {})
    made = steps.get(step, {}).get("made_seconds", 0.0) if kept else seconds
    steps[step] = {"seconds": round(seconds, 3), "made_seconds": round(made, 3), "run": run}
    write_json(path, {"run": found.get("run", {}), "steps": steps})


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The latest run, and each step's ``name``, ``seconds`` in it and ``kept`` seconds.

    ``kept``: what a step took in an earlier run whose work this one kept.
    """
    found = _read(path)
    run = dict(found.get("run", {}))
    return run, [_step(name, entry, run) for name, entry in found.get("steps", {}).items()]


def _step(name: str, entry: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    seconds = entry["seconds"] if entry["run"] == run.get("id") else 0.0
    kept = entry["made_seconds"] if entry["made_seconds"] != seconds else 0.0
    return {"name": name, "seconds": seconds, "kept": kept}


def _read(path: Path) -> dict[str, Any]:
    """What the file holds; nothing when it is not there, damaged, or of an older version."""
    try:
        found = read_json(path) if path.is_file() else {}
    except VersatuneError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("steps"), dict) else {}
