"""What DESIGN promises of the rooms: who may import whom, and where names may be written."""

import ast
import importlib.util
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from d2i1_data.diff2in1 import HOSTS
from d2i1_data.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hub_cards", "d2i1_data", "d2i1_train", "scripts")  # lowest first
# Inside d2i1_data, lowest first; those on one line do not count as above one another.
ROOMS = (
    ("diff2in1", "errors", "checks"),
    ("tasks", "hub"),
    ("dataset",),
    ("checkpoints",),
    ("sources",),
    ("card",),
    ("creation",),
    ("inspection", "export"),
    ("publish",),
    ("app",),
)
RANK = {room: rank for rank, line in enumerate(ROOMS) for room in line}
ALLOWED_BELOW = {"torch", "numpy", "PIL", "diffusers", "transformers", "huggingface_hub"}
ALLOWED_BELOW |= sys.stdlib_module_names

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
PUBLISHED = [name for name in MODULES if name.startswith("d2i1_data.diff2in1")]
each_module = pytest.mark.parametrize("name", MODULES)


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


def package_of(name: str) -> str:
    """The package a relative import in this module starts from."""
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


def imports(name: str) -> Iterator[tuple[ast.stmt, str]]:
    """Every import of a module at any depth, as full names; those for type checkers left out."""
    tree = parsed(name)
    checked = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for branch in node.body
        for inner in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if node in checked:
            continue
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            full = importlib.util.resolve_name(module, package_of(name)) if node.level else module
            yield node, full
            yield from ((node, f"{full}.{alias.name}") for alias in node.names)


def test_there_is_something_to_check() -> None:
    assert {name.partition(".")[0] for name in MODULES} >= {"hub_cards", "d2i1_data", "d2i1_train"}
    assert len(MODULES) > 40
    targets = {target for _, target in imports("d2i1_data.creation.producers.creator")}
    assert {"d2i1_data.errors.InputError", "d2i1_data.creation.plan", "torch"} <= targets


@each_module
def test_packages_import_downwards_only(name: str) -> None:
    own = name.partition(".")[0]
    for _, target in imports(name):
        other = target.partition(".")[0]
        assert other != "tests"
        if other in PACKAGES:
            assert PACKAGES.index(other) <= PACKAGES.index(own), f"{name} imports {target}"


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("d2i1_data.")])
def test_rooms_of_data_import_downwards_only(name: str) -> None:
    own = name.split(".")[1]
    assert own in RANK, f"{own} has no place in the order of rooms: see the design, section 2"
    for _, target in imports(name):
        parts = target.split(".")
        if parts[0] == "d2i1_data" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= RANK[own], f"{name} imports {target}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_modules_can_be_joined(name: str) -> None:
    top = parsed(name).body
    for node, target in imports(name):
        assert node in top, f"{name}: {target} is not imported at the top"
        if isinstance(node, ast.ImportFrom) and node.level:
            assert target.startswith("d2i1_data.diff2in1"), f"{name} imports {target}"
            assert not any(alias.asname for alias in node.names), f"{name} renames {target}"
        else:
            assert target.partition(".")[0] in ALLOWED_BELOW, f"{name} imports {target}"


def test_published_modules_define_no_name_twice() -> None:
    owners: dict[str, str] = {}
    for name in PUBLISHED:
        for node in parsed(name).body:
            named = [getattr(node, "name", None)]
            if isinstance(node, ast.Assign | ast.AnnAssign):
                goals = node.targets if isinstance(node, ast.Assign) else [node.target]
                stored = (n for goal in goals for n in ast.walk(goal) if isinstance(n, ast.Name))
                named = [n.id for n in stored if isinstance(n.ctx, ast.Store)]
            for defined in named:
                if defined and defined != "__all__":
                    assert owners.setdefault(defined, name) == name, (defined, owners[defined])
    assert owners["Diff2in1Pipeline"] == "d2i1_data.diff2in1.pipeline"


@each_module
def test_accelerator_and_lora_live_in_training(name: str) -> None:
    if name.startswith("d2i1_train"):
        return
    forbidden = {"peft", "Accelerator", "LoraConfig", "add_adapter", "get_peft_model"}
    for _, target in imports(name):
        assert not forbidden & set(target.split(".")), f"{name} imports {target}"
    for node in ast.walk(parsed(name)):
        used = getattr(node, "id", None) or getattr(node, "attr", None)
        assert used not in forbidden, f"{name}: {used}"


def said(tree: ast.Module) -> Iterator[ast.Constant]:
    """String constants that do something: no docstrings, no bare strings after a field."""
    bare = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in bare:
            yield node


@each_module
def test_task_and_host_names_stay_home(name: str) -> None:
    homes = ("d2i1_data.tasks", "d2i1_data.diff2in1.hosts", "d2i1_data.sources")
    if name.startswith(homes):
        return
    names, tree = {*TASKS, *HOSTS}, parsed(name)
    for constant in said(tree):
        words = {word.strip() for word in constant.value.split(",")}  # "depth,semseg" is two names
        assert not words & names, f"{name}:{constant.lineno} says {constant.value!r}"
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            assert node.arg not in names, f"{name}:{node.value.lineno} says {node.arg}="
        if isinstance(node, ast.Attribute):
            assert node.attr not in names, f"{name}:{node.lineno} says .{node.attr}"


@each_module
def test_modules_say_what_they_are(name: str) -> None:
    assert MODULES[name].stem not in {"utils", "util", "common", "helpers", "helper", "misc"}
    if MODULES[name].read_text().strip():
        assert ast.get_docstring(parsed(name)), f"{name} has no docstring"
    else:
        assert MODULES[name].name == "__init__.py"


@pytest.mark.parametrize(
    "name", ["d2i1_data", "d2i1_train.cli", "d2i1_data.creation.settings", "d2i1_train.settings"]
)
def test_light_modules_import_nothing_heavy(name: str) -> None:
    heavy = ("torch", "diffusers", "transformers", "datasets", "accelerate", "jsonargparse")
    code = f"import sys, {name}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_help_is_quick() -> None:
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "d2i1_train.cli", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # processor time: a clock on the wall would also measure what else this machine is doing
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0, done.stderr
        assert "self-improve" in done.stdout
    assert min(spent) < 0.5
