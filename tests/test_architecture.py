"""The rules: who may import whom, where names may be written, how long things may be."""

import ast
import importlib
import importlib.util
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest

from d2i1_data.diff2in1 import HOSTS
from d2i1_data.diff2in1.families import FAMILIES
from d2i1_data.tasks import TASKS
from d2i1_train.acts import RECORDS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hub_cards", "d2i1_data", "d2i1_train", "diff2in1", "scripts")  # lowest first
# Inside d2i1_data, lowest first; rooms on one line are not above one another.
ROOMS = (
    ("diff2in1", "errors", "checks", "registry"),
    ("tasks", "hub"),
    ("dataset",),
    ("checkpoints",),
    ("sources",),
    ("card",),
    ("creation",),
    ("captioning", "inspection", "export"),
    ("publish",),
    ("app",),
)
RANK = {room: rank for rank, line in enumerate(ROOMS) for room in line}
ALLOWED_BELOW = {
    "torch",
    "numpy",
    "PIL",
    "diffusers",
    "transformers",
    "huggingface_hub",
    "safetensors",
}
ALLOWED_BELOW |= sys.stdlib_module_names
FOREIGN_NAMES = {("d2i1_data.sources.pascal_context", "LabelMap")}  # a variable in its files
MOST_LINES, MOST_FUNCTION_LINES = 400, 60

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in [ROOT / f"{package}.py", *sorted((ROOT / package).rglob("*.py"))]
    if path.is_file()
}
PUBLISHED = [name for name in MODULES if name.startswith("d2i1_data.diff2in1")]
FOLDERS = [package for package in PACKAGES if (ROOT / package).is_dir()]
OUR_MODULE = re.compile(rf"\b(?:{'|'.join(FOLDERS)})(?:\.\w+)+")
each_module = pytest.mark.parametrize("name", MODULES)


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


def package_of(name: str) -> str:
    """The package a relative import in this module starts from."""
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


def imports(name: str) -> Iterator[tuple[ast.stmt, str]]:
    """Every import statement at any depth, as full names.

    Imports for type checkers count too: a file that needs another file's types depends on it.
    """
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            full = importlib.util.resolve_name(module, package_of(name)) if node.level else module
            yield from ((node, f"{full}.{alias.name}") for alias in node.names)


def used_strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """String constants that do something: no docstrings, no bare strings after a field."""
    bare = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in bare:
            yield node


def module_of(target: str) -> str | None:
    """The module of ours that a dotted name leads to; None for a name of somebody else."""
    while target and target not in MODULES:
        target = target.rpartition(".")[0]
    return target or None


@cache
def dependencies(name: str) -> frozenset[str]:
    """The modules of ours that a module names: in imports, and in strings (dynamic imports)."""
    targets = [target for _, target in imports(name)]
    for constant in used_strings(parsed(name)):
        targets += OUR_MODULE.findall(constant.value)
    found = {module_of(target) for target in targets}
    return frozenset(module for module in found if module and module != name)


def upward(name: str) -> set[tuple[str, str]]:
    """The dependencies of a module that are above it, in packages or in rooms."""
    found = set()
    package, *inner = name.split(".")
    for other in dependencies(name):
        other_package, *other_inner = other.split(".")
        above = PACKAGES.index(other_package) > PACKAGES.index(package)
        if package == other_package == "d2i1_data" and inner and other_inner:
            above = RANK[other_inner[0]] > RANK[inner[0]]
        if above:
            found.add((name, other))
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of a graph, its first member repeated at the end; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_there_is_something_to_check() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(PACKAGES)
    assert len(MODULES) > 40
    targets = {target for _, target in imports("d2i1_data.creation.producers.creator")}
    assert {"d2i1_data.errors.InputError", "torch"} <= targets
    assert "d2i1_train.warm_up" in dependencies("d2i1_train.acts")  # named in a string only


def test_every_room_of_data_has_a_rank() -> None:
    rooms = {name.split(".")[1] for name in MODULES if name.startswith("d2i1_data.")}
    assert rooms == set(RANK)


def test_dependencies_point_downwards() -> None:
    """Packages and rooms; import statements, imports for type checkers and names in strings."""
    assert set().union(*map(upward, MODULES)) == set()


def test_the_public_module_names_every_act() -> None:
    """`import diff2in1` gives the function and the settings of each act."""
    import diff2in1

    functions = {act.function.rpartition(":")[2]: act.function for act in RECORDS}
    settings = {act.settings.__name__: act.settings for act in RECORDS}
    own = {"Diff2in1Pipeline", "InputError"}
    stated = {target for _, target in imports("diff2in1")}
    assert {*diff2in1.__all__} == own | {*functions, *settings}
    for name, place in functions.items():
        module, _, function = place.partition(":")
        assert getattr(diff2in1, name) is getattr(importlib.import_module(module), function)
        assert f"{module}.{function}" in stated  # for type checkers
    assert all(getattr(diff2in1, name) is kind for name, kind in settings.items())
    assert diff2in1.__version__ == version("diff2in1") and not hasattr(diff2in1, "warmup")


def test_there_is_no_circle_of_files() -> None:
    graph = {name: set(dependencies(name)) for name in MODULES}
    assert " -> ".join(circle(graph)) == ""


@each_module
def test_dynamic_imports_name_their_module(name: str) -> None:
    """The tests above read names in strings. A registry is a table of such strings; join.py imports
    what the model room imports."""
    assert not any(target.partition(".")[0] == "tests" for _, target in imports(name))
    for node in ast.walk(parsed(name)):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        assert called != "__import__", f"{name}:{node.lineno}"
        if called.rpartition(".")[2] == "import_module" and name not in (
            "d2i1_train.cli",
            "d2i1_data.registry",
            "d2i1_data.diff2in1.join",
        ):
            assert isinstance(node.args[0], ast.Constant), f"{name}:{node.lineno}"


@pytest.mark.parametrize("file", sorted((ROOT / "tests").rglob("*.py")), ids=lambda f: f.name)
def test_programs_in_strings_import_what_is_there(file: Path) -> None:
    """Tests start small programs that stand in strings; ruff and mypy do not read those."""
    for constant in used_strings(ast.parse(file.read_text())):
        for target in OUR_MODULE.findall(constant.value):
            module = module_of(target) or ""
            name = target.removeprefix(module).removeprefix(".").partition(".")[0]
            assert re.search(rf"\b{name}\b", MODULES[module].read_text()), (constant.lineno, target)


@each_module
def test_files_and_functions_are_short(name: str) -> None:
    """A published host is one file, so hosts may be longer."""
    lines = len(MODULES[name].read_text().splitlines())
    if not name.startswith("d2i1_data.diff2in1.hosts"):
        assert lines <= MOST_LINES, f"{name} has {lines} lines"
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            text = first if ast.get_docstring(node) is not None else None
            documented = (text.end_lineno or 0) - text.lineno + 1 if text else 0
            length = (node.end_lineno or 0) - node.lineno + 1 - documented
            assert length <= MOST_FUNCTION_LINES, f"{name}.{node.name} has {length} lines"


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


@each_module
def test_task_and_host_names_stay_home(name: str) -> None:
    homes = ("d2i1_data.tasks", "d2i1_data.diff2in1.hosts", "d2i1_data.sources")
    if name.startswith(homes):
        return
    names, tree = {*TASKS, *HOSTS}, parsed(name)
    for constant in used_strings(tree):
        words = {word.strip() for word in constant.value.split(",")}  # "depth,semseg" is two names
        assert not words & names, f"{name}:{constant.lineno} says {constant.value!r}"
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            assert node.arg not in names, f"{name}:{node.value.lineno} says {node.arg}="
        if isinstance(node, ast.Attribute):
            assert node.attr not in names, f"{name}:{node.lineno} says .{node.attr}"


@each_module
def test_family_names_stay_home(name: str) -> None:
    """What differs between families is a member of `Family`: nobody else asks which one it is."""
    rooms = ("families", "hosts")  # a host is made for certain families
    homes = ("d2i1_data.tasks", *(f"d2i1_data.diff2in1.{room}" for room in rooms))
    if name.startswith(homes):
        return
    names = {*FAMILIES, *(family.__name__ for family in FAMILIES.values())}
    for constant in used_strings(parsed(name)):
        if (name, constant.value) in FOREIGN_NAMES:
            continue
        words = {word.strip() for word in constant.value.split(",")}
        assert not words & names, f"{name}:{constant.lineno} says {constant.value!r}"
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Name | ast.Attribute | ast.alias):
            used = getattr(node, "id", None) or getattr(node, "attr", None)
            used = used or getattr(node, "name", None)
            assert used not in names, f"{name}:{node.lineno} names {used}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            asked = ast.unparse(node.args[0])
            assert not asked.endswith("family"), f"{name}:{node.lineno} asks the kind of {asked}"


@each_module
def test_modules_say_what_they_are(name: str) -> None:
    assert MODULES[name].stem not in {"utils", "util", "common", "helpers", "helper", "misc"}
    if MODULES[name].read_text().strip():
        assert ast.get_docstring(parsed(name)), f"{name} has no docstring"
    else:
        assert MODULES[name].name == "__init__.py"


@pytest.mark.parametrize(
    "name",
    [
        "d2i1_data",
        "d2i1_train.cli",
        "d2i1_data.creation.settings",
        "d2i1_data.sources",
        "d2i1_data.export.registry",
        "d2i1_train.settings",
    ],
)
def test_light_modules_import_nothing_heavy(name: str) -> None:
    heavy = ("torch", "diffusers", "transformers", "datasets", "accelerate", "jsonargparse")
    code = f"import sys, {name}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_importing_the_package_prints_nothing() -> None:
    """Not even what libraries say about parts of theirs that nothing here uses."""
    code = "import diff2in1, logging; loud = logging.getLogger('transformers.utils.import_utils')"
    code += "; assert loud.level == logging.NOTSET"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


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
