"""Who may import whom, read from the import statements."""

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
CORE = "alpacafarm_core"
EDGES = {
    f"{CORE}.batch_api",
    f"{CORE}.client",
    f"{CORE}.files",
    f"{CORE}.formats",
    f"{CORE}.generate",
    f"{CORE}.hub",
    f"{CORE}.ledger",
    f"{CORE}.llm",
    f"{CORE}.lock",
    f"{CORE}.reward",
    f"{CORE}.scoring",
    f"{CORE}.sources",
    f"{CORE}.store",
    f"{CORE}.surroundings",
    f"{CORE}.train.batches",
    f"{CORE}.train.corpus",
    f"{CORE}.train.reading",
    f"{CORE}.train.descent",
    f"{CORE}.train.forward",
    f"{CORE}.train.job",
    f"{CORE}.train.models",
    f"{CORE}.train.offline",
    f"{CORE}.train.online",
}
PURE = [
    "answers",
    "completions",
    "pacing",
    "search",
    "select",
    "tally",
    "templates",
    "train/logps",
    "train/rl",
]
PIPELINE = {"prefect", "tasks", "flows"}
HEAVY = {"deepspeed", "torch", "transformers", "vllm"}
WITH_PREFECT = {"tasks/previews.py", "tasks/progress.py", "tasks/slots.py", "tasks/stage.py"}


def sources(folder: str) -> list[Path]:
    """Python files below a folder of the project."""
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every import anywhere in a file, as module and name ("" for a whole module)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import; name the package"
            yield from ((str(node.module), alias.name) for alias in node.names)


def packages(path: Path) -> set[str]:
    """Top-level packages a file imports."""
    return {module.split(".")[0] for module, _ in imports(path)}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def edges(path: Path) -> Iterator[tuple[str, str]]:
    """Edges a file imports, with the names it takes from them."""
    for module, name in imports(path):
        if module in EDGES:
            yield module, name
        elif f"{module}.{name}" in EDGES:
            yield f"{module}.{name}", ""


@pytest.mark.parametrize("path", sources(CORE), ids=named)
def test_the_core_knows_no_pipeline(path):
    assert not packages(path) & PIPELINE


@pytest.mark.parametrize("path", sources("tasks"), ids=named)
def test_tasks_know_no_flow_and_prefect_only_at_the_hinge(path):
    allowed = {"prefect"} if named(path) in WITH_PREFECT else set()
    assert not packages(path) & {"prefect", "flows"} - allowed


def test_no_module_of_tasks_takes_the_place_of_a_stage():
    import tasks

    for path in sources("tasks"):
        importlib.import_module(f"tasks.{path.stem}" if path.stem != "__init__" else "tasks")
    assert not [verb for verb in tasks.__all__ if isinstance(getattr(tasks, verb), ModuleType)]


@pytest.mark.parametrize("path", sources(f"{CORE}/methods"), ids=named)
def test_methods_touch_no_edge(path):
    assert not packages(path) & {"polars", "transformers", "vllm", "deepspeed"}
    assert not list(edges(path))


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_take_only_types_from_edges(name):
    path = ROOT / CORE / f"{name}.py"
    taken = {f"{module}.{name}" for module, name in edges(path) if not name[:1].isupper()}
    assert not taken


def test_the_core_has_no_import_cycle():
    graph: dict[str, set[str]] = {}
    for path in sources(CORE):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.ImportFrom):
                names = {f"{statement.module}.{alias.name}" for alias in statement.names}
                graph.setdefault(module, set()).update({str(statement.module), *names} - {module})
    TopologicalSorter(graph).prepare()


def test_importing_every_flow_loads_no_heavy_package():
    program = (
        "import importlib, json, pkgutil, sys, flows\n"
        "for found in pkgutil.walk_packages(flows.__path__, 'flows.'):\n"
        "    if not found.name.endswith('__main__'):\n"
        "        importlib.import_module(found.name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not set(json.loads(done.stdout)) & HEAVY
