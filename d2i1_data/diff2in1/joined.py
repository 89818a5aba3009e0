"""A module and all it imports from its own package, as one file that runs without the package.

diffusers fetches one file for a custom pipeline and one for a custom component; neither a copied
tree nor flat siblings load from the Hub.
"""

import ast
import importlib
import importlib.util
import inspect


def join_modules(entry: str) -> str:
    """Source of the module named `entry` with every relative import replaced by what it imports."""
    sections: dict[str, str] = {}
    owner: dict[str, str] = {}

    def visit(name: str) -> None:
        module = importlib.import_module(name)
        package = module.__package__ or ""
        tree = ast.parse(inspect.getsource(module))
        docstring = ast.get_docstring(tree, clean=False)
        body = []
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.level:
                if any(alias.asname for alias in node.names):
                    raise ValueError(f"{name}: a joined module cannot rename what it imports")
                below = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                if below not in sections:
                    visit(below)
            elif not (docstring is not None and node is tree.body[0]):
                body.append(node)
        for node in body:
            for defined in _defined(node):
                if owner.setdefault(defined, name) != name:
                    raise ValueError(f"{defined} is defined by both {owner[defined]} and {name}")
        lines = inspect.getsource(module).splitlines()
        parts = ["\n".join(lines[_start(node) - 1 : node.end_lineno]) for node in body]
        heading = f'"""{docstring}"""\n' if name == entry else f"# --- {name.rsplit('.', 1)[-1]} ---\n"
        sections[name] = heading + "\n" + "\n\n".join(parts)

    visit(entry)
    own = sections.pop(entry)
    if not sections:  # already one file, such as a pipeline that was loaded from a published one
        return inspect.getsource(importlib.import_module(entry))
    docstring_end = own.index('"""\n', 3) + 4
    return "\n\n\n".join([own[:docstring_end], *sections.values(), own[docstring_end:]]) + "\n"


def _start(node: ast.stmt) -> int:
    """First line of a statement with its decorators."""
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def _defined(node: ast.stmt) -> list[str]:
    """Names a top-level statement defines, imports aside."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]
