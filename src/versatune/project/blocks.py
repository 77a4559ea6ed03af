"""Every block of parameters that a project knows, and the mistakes in those it was given."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError

from versatune.artifacts import to_jsonable
from versatune.comparing.config import CompareParams
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.demo.base_model import BaseModelParams
from versatune.demo.config import SampleParams
from versatune.evaluation.config import EvaluateParams
from versatune.params import described, did_you_mean
from versatune.pipelines.mixture.params import MixtureParams
from versatune.pipelines.report.params import ReportParams
from versatune.pipelines.train.params import TrackingParams
from versatune.probing.config import ProbeParams
from versatune.project.in_use import in_use
from versatune.retraining.config import RetrainParams
from versatune.training.config import TrainParams
from versatune.training.reference_config import ReferenceParams
from versatune.work import ParallelParams

BLOCKS: dict[str, type[BaseModel]] = {
    "sample": SampleParams,
    "base_model": BaseModelParams,
    "domains": Domains,
    "ingest": CleanParams,
    "tokenize": TokenizeParams,
    "probe": ProbeParams,
    "mixture": MixtureParams,
    "references": ReferenceParams,
    "train": TrainParams,
    "tracking": TrackingParams,
    "evaluate": EvaluateParams,
    "compare": CompareParams,
    "report": ReportParams,
    "retrain": RetrainParams,
    "parallel": ParallelParams,
}
"""Top-level key -> its model. A test compares them with what the pipelines' nodes ask for."""

HELPER = "_"
"""Top-level keys that begin so are only for ``${...}`` in other values, as in Kedro's catalog."""

Key = tuple[str | int, ...]
Blocks = dict[str, BaseModel]


class Problem(NamedTuple):
    """A mistake in the parameters: the key, and the message."""

    key: Key
    message: str


def read(parameters: Mapping[str, Any], extra: Collection[str]) -> tuple[Blocks, list[Problem]]:
    """The valid blocks, and the problems of the others.

    ``extra``: allowed top-level keys that are not blocks.
    """
    blocks: Blocks = {}
    problems: list[Problem] = []
    for name, value in parameters.items():
        if name in BLOCKS:
            try:
                blocks[name] = TypeAdapter(BLOCKS[name]).validate_python(value)
            except ValidationError as error:
                problems += _problems(name, value, error)
        elif not name.startswith(HELPER) and name not in extra:
            problems.append(Problem((name,), unknown_block(name)))
    return blocks, problems


def unknown_block(name: str) -> str:
    """The message about an unknown top-level key, with the nearest known one."""
    hint = did_you_mean(name, list(BLOCKS))
    if not hint:
        inside = [f"{block}.{name}" for block, m in BLOCKS.items() if name in m.model_fields]
        hint = f" (did you mean {' or '.join(inside[:3])}?)" if inside else ""
    return f"there is no such block of parameters{hint}"


def used(blocks: Blocks) -> dict[str, Any]:
    """The parameters in use as JSON. Inherited values are filled in: `references` takes what it
    does not set from `train`."""
    shown: dict[str, Any] = dict(blocks)
    references, train = blocks.get("references"), blocks.get("train")
    if isinstance(references, ReferenceParams) and isinstance(train, TrainParams):
        shown["references"] = references.as_used(train)
    return in_use(to_jsonable(shown))


def _problems(name: str, value: Any, error: ValidationError) -> Iterator[Problem]:
    if value is None:
        yield Problem((name,), "the block is empty: give it keys, or remove the line")
        return
    for one in error.errors():
        key = _written(value, one["loc"], one["type"] == "missing")
        yield Problem((name, *key), described(BLOCKS[name], one))


def _written(value: Any, loc: Key, missing: bool) -> Key:
    """The key as a person writes it: pydantic puts the names of a union's members between."""
    key: list[str | int] = []
    for number, part in enumerate(loc, start=1):
        is_there = (isinstance(value, Mapping) and part in value) or (
            isinstance(value, list) and isinstance(part, int)
        )
        if is_there:
            value = value[part]
        if is_there or (missing and number == len(loc)):
            key.append(part)
    return tuple(key)
