"""Imports inside functions: only where they put off a library that takes long to import."""

import ast
from collections.abc import Iterator
from pathlib import Path

SLOW = {
    *("torch", "safetensors.torch", "transformers", "peft", "bitsandbytes", "vllm", "lm_eval"),
    *("mlflow", "kedro_mlflow", "datasets", "sklearn", "matplotlib", "PIL"),
    *("huggingface_hub", "ray"),
}


class Module:
    """A module's imports: those made when it is imported, and those inside its functions."""

    def __init__(self, source: str, modules: set[str]) -> None:
        self.first: set[str] = set()
        self.later: list[tuple[int, str]] = []
        self._modules = modules
        self._read(ast.parse(source), inside=False)

    def _read(self, node: ast.AST, *, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import | ast.ImportFrom):
                for name in self._names(child):
                    self.later.append((child.lineno, name)) if inside else self.first.add(name)
            function = isinstance(child, ast.FunctionDef)
            self._read(child, inside=inside or function)

    def _names(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        for alias in node.names:
            whole = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else ""
            yield whole if whole in self._modules else getattr(node, "module", None) or alias.name


def brought(name: str, modules: dict[str, Module], seen: set[str]) -> set[str]:
    """The libraries that importing ``name`` imports."""
    if name not in modules:
        return {name, name.partition(".")[0]}
    if name in seen:
        return set()
    seen.add(name)
    parents = [p for p in (name.rpartition(".")[0],) if p in modules]
    return set[str]().union(*(brought(n, modules, seen) for n in [*parents, *modules[name].first]))


def idle_imports(sources: dict[str, str]) -> list[str]:
    """``module:line name`` of imports inside functions that put off none of :data:`SLOW`."""
    modules = {name: Module(text, set(sources)) for name, text in sources.items()}
    return [
        f"{name}:{line} {imported}"
        for name, module in modules.items()
        for line, imported in module.later
        if not (brought(imported, modules, set()) - brought(name, modules, set())) & SLOW
    ]


def test_no_import_inside_a_function_is_idle(project_root: Path) -> None:
    root = project_root / "src"
    files = [f for f in (root / "versatune").rglob("*.py") if "{{" not in str(f)]
    names = {".".join(f.relative_to(root).with_suffix("").parts): f for f in files}
    sources = {n.removesuffix(".__init__"): f.read_text("utf-8") for n, f in names.items()}
    assert len(sources) > 300
    assert idle_imports(sources) == []


def test_an_idle_import_would_be_found() -> None:
    sources = {
        "a": "import torch\ndef f():\n    import mlflow\n    import json\n    import torch.nn",
        "b": "def f():\n    from c import slow, quick\n    import a",
        "c": "",
        "c.slow": "import mlflow",
        "c.quick": "if TYPE_CHECKING:\n    import mlflow",
    }
    assert idle_imports(sources) == ["a:4 json", "a:5 torch.nn", "b:2 c.quick"]
