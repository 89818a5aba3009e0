"""Join a module and its imports from its own package to one file that runs without the package.

From the Hub, diffusers loads only one file for a custom pipeline, and one for a custom component.
"""

import ast
import importlib
import importlib.util
import inspect


def join_modules(entry: str) -> str:
    """The source of a module, with the imported source in place of each relative import.

    Args:
        entry: full name of the module.

    Raises:
        ValueError: if two modules define the same name, or a relative import renames something.
    """
    sections: dict[str, str] = {}
    owner: dict[str, str] = {}

    def visit(name: str) -> None:
        module = importlib.import_module(name)
        lines, tree = inspect.getsource(module).splitlines(), ast.parse(inspect.getsource(module))
        docstring = ast.get_docstring(tree, clean=False)
        parts = []
        for node in tree.body[0 if docstring is None else 1 :]:
            if isinstance(node, ast.ImportFrom) and node.level:
                below = _imported(node, module.__package__ or "")
                if below not in sections:
                    visit(below)
                continue
            for bound, origin in _bound(node, name):
                if owner.setdefault(bound, origin) != origin:
                    raise ValueError(f"{bound} is defined by both {owner[bound]} and {origin}")
            parts.append("\n".join(lines[_start(node) - 1 : node.end_lineno]))
        heading = f'"""{docstring}"""' if name == entry else f"# --- {name.rsplit('.', 1)[-1]} ---"
        sections[name] = heading + "\n\n" + "\n\n".join(parts)

    visit(entry)
    own = sections.pop(entry)
    if not sections:  # already one file, such as a pipeline that was loaded from the Hub
        return inspect.getsource(importlib.import_module(entry))
    docstring_end = own.index('"""\n', 3) + 4
    return "\n\n\n".join([own[:docstring_end], *sections.values(), own[docstring_end:]]) + "\n"


def _imported(node: ast.ImportFrom, package: str) -> str:
    """Full name of the module that a relative import imports from."""
    if any(alias.asname for alias in node.names):
        raise ValueError(f"{package}: a joined module cannot rename what it imports")
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


def _start(node: ast.stmt) -> int:
    """First line of a statement, including its decorators."""
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def _bound(node: ast.stmt, module: str) -> list[tuple[str, str]]:
    """The names that a top-level statement binds, each with the place of its definition."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [(node.name, module)]
    if isinstance(node, ast.Import):
        names = [(one.asname or one.name.partition(".")[0], one) for one in node.names]
        return [(name, one.name if one.asname else name) for name, one in names]
    if isinstance(node, ast.ImportFrom):
        return [(one.asname or one.name, f"{node.module}.{one.name}") for one in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [(target.id, module) for target in targets if isinstance(target, ast.Name)]
