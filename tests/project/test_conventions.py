"""What holds for the whole project: typed parameters, catalogued datasets, sizes of rooms."""

import ast
import inspect
import re
import typing
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.config import OmegaConfigLoader
from kedro.framework.project import configure_project, pipelines, settings
from kedro.pipeline import Pipeline
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

LAYERS = {
    "raw", "intermediate", "primary", "feature", "model_input", "models", "model_output",
    "reporting",
}  # fmt: skip
SIZES = {"nodes.py": 170, "pipeline.py": 110}
MODULE_SIZE = 330


@pytest.fixture(scope="module")
def registered() -> dict[str, Pipeline]:
    configure_project("versatune")
    return dict(pipelines)


def config(root: Path, env: str) -> OmegaConfigLoader:
    return OmegaConfigLoader(str(root / "conf"), env=env, **settings.CONFIG_LOADER_ARGS)


def typed_parameters(pipeline: Pipeline) -> dict[str, Any]:
    """The annotation of every ``params:`` input; {} entries mean it would arrive as a dict."""
    found: dict[str, Any] = {}
    for node in pipeline.nodes:
        hints = typing.get_type_hints(node.func)
        names = list(inspect.signature(node.func).parameters)
        for dataset, argument in zip(node.inputs, names, strict=False):
            if dataset.startswith("params:"):
                found[f"{node.name}:{dataset}"] = hints.get(argument)
    return found


def test_the_six_stages_are_registered(registered: dict[str, Pipeline]) -> None:
    assert {"ingest", "probe", "mixture", "train", "evaluate", "report"} <= set(registered)
    total = sum(len(registered[s].nodes) for s in set(registered) - {"__default__"})
    assert 0 < len(registered["__default__"].nodes) <= total


def test_every_parameter_arrives_as_a_model(registered: dict[str, Pipeline]) -> None:
    loose = {
        where: kind
        for pipeline in registered.values()
        for where, kind in typed_parameters(pipeline).items()
        if not (inspect.isclass(kind) and issubclass(kind, BaseModel))
    }
    assert not loose


def test_an_untyped_parameter_would_be_found() -> None:
    from kedro.pipeline import node

    def loose(params: dict) -> dict:
        return params

    found = typed_parameters(Pipeline([node(loose, "params:x", "y")]))
    assert list(found.values()) == [dict]


RESULTS = sorted(
    f"results/{folder.name}"
    for folder in (Path(__file__).parents[2] / "conf" / "results").iterdir()
)


@pytest.mark.parametrize("env", ["base", "test", "smollm2", "paper", *RESULTS])
def test_parameters_of_every_environment_validate(
    env: str, registered: dict[str, Pipeline], project_root: Path
) -> None:
    loader = config(project_root, env)
    if "smollm2" in env:
        loader.runtime_params = {"model": "model", "data": "data"}
    parameters = loader["parameters"]
    for pipeline in registered.values():
        for where, kind in typed_parameters(pipeline).items():
            value: Any = parameters
            for part in where.split("params:")[1].split("."):
                value = value[part]
            kind.model_validate(value)


def test_every_dataset_is_in_the_catalog_with_a_layer(
    registered: dict[str, Pipeline], project_root: Path
) -> None:
    entries = config(project_root, "base")["catalog"]
    patterns = [re.compile(re.sub(r"\\\{\w+\\\}", "[^.]+", re.escape(name))) for name in entries]
    for pipeline in registered.values():
        for dataset in pipeline.datasets():
            if dataset == "parameters" or dataset.startswith("params:"):
                continue
            assert any(p.fullmatch(dataset) for p in patterns), f"{dataset} is not in the catalog"
    for name, entry in ((n, e) for n, e in entries.items() if not n.startswith("_")):
        assert entry["metadata"]["kedro-viz"]["layer"] in LAYERS, name


def layers_unlike_folders(entries: dict[str, Any]) -> dict[str, str]:
    """Entries whose layer in kedro-viz is not that of the numbered folder of their file."""
    return {
        name: f"{folder[1]}, shown as {layer}"
        for name, entry in entries.items()
        if "filepath" in entry
        and (folder := re.search(r"/\d\d_(\w+?)/", str(entry["filepath"]) + "/"))
        and folder[1] != (layer := entry["metadata"]["kedro-viz"]["layer"])
    }


def test_layers_agree_with_folders(project_root: Path) -> None:
    entries = config(project_root, "base")["catalog"]
    entries = {name: entry for name, entry in entries.items() if not name.startswith("_")}
    assert set(layers_unlike_folders(entries)) == {
        "base_model",  # with the models, but what all begins from
        *("retrain_news", "retrain_mixture"),  # in the folder of the retraining they belong to
        *("retrain_runs", "retrain_knowledge"),  # what a retraining begins from
        "evaluations",  # read by what trains and evaluates the models of a comparison
    }
    moved = {"forecast": {**entries["forecast"], "filepath": "data/04_feature/forecast.json"}}
    assert set(layers_unlike_folders(moved)) == {"forecast"}


def test_modules_stay_small(project_root: Path) -> None:
    long = [
        (str(path.relative_to(project_root)), lines)
        for path in (project_root / "src").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > SIZES.get(path.name, MODULE_SIZE)
    ]
    assert not long


def shells(source: str) -> list[int]:
    """Lines that hand a text to a shell."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if ast.unparse(call.func) in ("os.system", "os.popen", "subprocess.getoutput")
        or any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in call.keywords)
    ]


def test_nothing_is_handed_to_a_shell(project_root: Path) -> None:
    files = [f for room in ("src", "deploy") for f in (project_root / room).rglob("*.py")]
    files = [file for file in files if ".venv" not in file.parts]
    assert len(files) > 50
    assert {str(file): found for file in files if (found := shells(file.read_text()))} == {}


def test_a_shell_would_be_found() -> None:
    assert shells("run(words, shell=True)\nos.system(text)\nrun(words, shell=False)") == [1, 2]


def test_fields_of_every_parameter_are_documented(registered: dict[str, Pipeline]) -> None:
    missing: set[str] = set()

    def visit(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            if not field.description and model.__name__ != "Domains":
                missing.add(f"{model.__name__}.{name}")
            for inner in (field.annotation, *typing.get_args(field.annotation)):
                if inspect.isclass(inner) and issubclass(inner, BaseModel):
                    visit(inner)

    for pipeline in registered.values():
        for kind in typed_parameters(pipeline).values():
            visit(kind)
    assert not missing


def test_the_lock_holds_every_dependency(project_root: Path) -> None:
    import tomllib

    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=~\[ ;]", d)[0] for d in project["dependencies"]]
    pins = (project_root / "requirements.lock").read_text().lower().replace("_", "-")
    assert [n for n in names if f"\n{n.lower()}==" not in pins] == []


def test_yaml_has_no_duplicate_keys(project_root: Path) -> None:
    class Strict(yaml.SafeLoader):
        pass

    def no_duplicates(loader: Strict, node: Any, deep: bool = False) -> dict[Any, Any]:
        written = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [loader.construct_object(key, deep=deep) for key in written]
        assert len(keys) == len(set(keys)), f"duplicate key in {loader.name}: {keys}"
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep)

    Strict.add_constructor("tag:yaml.org,2002:map", no_duplicates)
    files = list((project_root / "conf").rglob("*.yml"))
    assert files
    for path in files:
        with path.open() as handle:
            yaml.load(handle, Strict)


def unmet(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> list[str]:
    """What the installed ``name[extras]`` and all below it ask for that is not installed."""
    if (name, extras) in seen:
        return []
    seen.add((name, extras))
    missing = []
    for text in metadata.requires(name) or []:
        asked = Requirement(text)
        if asked.marker and not any(asked.marker.evaluate({"extra": e}) for e in extras | {""}):
            continue
        try:
            there = metadata.version(asked.name)
        except metadata.PackageNotFoundError:
            missing.append(f"{name}: {text}, not installed")
            continue
        if not asked.specifier.contains(there, prereleases=True):
            missing.append(f"{name}: {text}, but {there} is installed")
        missing += unmet(canonicalize_name(asked.name), frozenset(asked.extras), seen)
    return missing


def test_what_the_package_asks_for_can_be_installed_together() -> None:
    """The lock is one solution of pyproject.toml, extras of the dependencies included."""
    assert unmet("versatune", frozenset(), set()) == []
