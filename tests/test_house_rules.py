"""Rules of the house that no linter knows, checked on the syntax trees of our packages."""

import ast
import subprocess
from pathlib import Path

import pytest

from credit import spec
from lab import specs, strict_json

ROOT = Path(__file__).parent.parent
PACKAGES = ("credit", "lab", "api", "worker", "creditlab")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
MAX_FILE, MAX_FUNCTION = 400, 60
DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "uniform_", "normal_"}
SYNCHRONISES = {"item", "cpu", "tolist", "numpy"}


def calls(path):
    """(name of the function or method, the call) for every call of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield (node.func.id if isinstance(node.func, ast.Name) else node.func.attr), node


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_has_one_subject_and_a_function_one_job(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno <= MAX_FUNCTION, node.name


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_random_number_comes_from_a_stream_of_the_run(path):
    for name, call in calls(path):
        if path.parts[-2:] != ("credit", "train.py"):
            assert name != "manual_seed" or isinstance(call.func.value, ast.Call), "the global random state"
        if path.is_relative_to(ROOT / "credit") and name in DRAWS:
            assert "generator" in {keyword.arg for keyword in call.keywords}, f"line {call.lineno}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent.name == "rules" or p.name in {"flow.py", "mirror.py"}], ids=str
)
def test_a_rule_never_waits_for_the_device(path):
    assert not {name for name, _ in calls(path)} & SYNCHRONISES


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_transactions_commit_and_bells_ring_in_one_place(path):
    names = {name for name, _ in calls(path)}
    assert "commit" not in names or path == ROOT / "lab" / "db.py"
    assert not names & {"delay", "apply_async", "send_task"} or path == ROOT / "lab" / "bell.py"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_from_outside_is_evaluated(path):
    names = {name for name, call in calls(path) if isinstance(call.func, ast.Name)}
    assert not names & {"eval", "exec", "compile"}
    imported = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert "pickle" not in imported or path == ROOT / "credit" / "formats" / "readers.py", (
        "the one restricted unpickler"
    )


def test_the_map_names_every_module():
    """ARCHITECTURE.md lists every file of our packages, and no other."""
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    drawn = (ROOT / "ARCHITECTURE.md").read_text()
    missing = [
        name
        for name in tracked
        if name.endswith(".py") and Path(name).name != "__init__.py" and f"`{Path(name).name}`" not in drawn
    ]
    assert not missing


@pytest.mark.parametrize("method", sorted(spec.menu(spec.Method)))
def test_every_method_has_its_page_and_its_row(method):
    folder = ROOT / "docs" / "methods"
    assert (folder / f"{method}.md").read_text().startswith(f"# `{method}`: ")
    assert f"| [`{method}`]({method}.md) |" in (folder / "README.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.json")), ids=lambda path: path.stem)
def test_every_example_is_a_spec(path):
    specs.parse(strict_json.loads(path.read_bytes()))
