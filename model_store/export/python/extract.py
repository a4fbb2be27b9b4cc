"""Take functions out of their modules, with what they use: the source of all of it as one text.

Names that a module imports from this package are followed; its other imports are kept. A class keeps its fields, and
those methods that the text uses.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = "model_store."
_Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
_Place = tuple[str, str]  # a module and a name in it; the name is "" for the module itself


@dataclass(frozen=True)
class _Module:
    """A module's lines, and its definitions and imports by their names."""

    lines: list[str]
    definitions: dict[str, _Definition]
    imports: dict[str, _Place]


@dataclass
class Extract:
    """What a text consists of: imports, and definitions, each after those that it uses."""

    imports: dict[str, _Place] = field(default_factory=dict)
    definitions: dict[str, _Place] = field(default_factory=dict)
    attributes: frozenset[str] = frozenset()  # that the definitions use; methods of other names are left out

    def import_lines(self) -> list[str]:
        """Return the import statements, sorted."""
        modules = [
            f"import {module}{'' if name == module else f' as {name}'}"
            for name, (module, original) in self.imports.items()
            if not original
        ]
        names: dict[str, list[str]] = {}
        for module, original in self.imports.values():
            if original:
                names.setdefault(module, []).append(original)
        return sorted(modules) + [
            f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names)
        ]

    def sources(self) -> Iterator[str]:
        """Yield the source of each definition."""
        seen = set[_Definition]()
        for module, name in self.definitions.values():
            definition = _read(module).definitions[name]
            if definition not in seen:  # one may define several names
                yield _source(_read(module), definition, self.attributes)
            seen.add(definition)


def extract(roots: Iterable[_Place]) -> Extract:
    """Return definitions of modules of this package with all that they use.

    ValueError if two definitions or imports of different modules have the same name.
    """
    roots, attributes = list(roots), frozenset[str]()
    while True:  # a method that is used may use other methods
        found = Extract(attributes=attributes)
        for module, name in roots:
            _add(found, module, name, set())
        used = frozenset(
            node.attr
            for module, name in found.definitions.values()
            for part in _kept_parts(_read(module).definitions[name], attributes)
            for node in ast.walk(part)
            if isinstance(node, ast.Attribute)
        )
        if used == attributes:
            return found
        attributes = used


def _add(found: Extract, module: str, name: str, pending: set[_Place]) -> None:
    read = _read(module)
    origin = read.imports.get(name)
    if origin is not None and origin[0].startswith(_PACKAGE):
        _add(found, *origin, pending)
        return
    place = origin or (module, name)
    if (origin is None and name not in read.definitions) or place in pending:
        return
    taken = found.imports.get(name) or found.definitions.get(name)
    if taken is not None:
        if taken != place:
            raise ValueError(f"{module}.{name}: expected one meaning of this name, found {'.'.join(taken)}, too")
        return
    if origin is not None:
        found.imports[name] = origin
        return
    pending.add(place)
    for part in _kept_parts(read.definitions[name], found.attributes):
        for node in ast.walk(part):
            if isinstance(node, ast.Name):
                _add(found, module, node.id, pending)
    found.definitions[name] = place


@cache
def _read(module: str) -> _Module:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"{module}: expected a module with a file, found none")
    text = Path(spec.origin).read_text(encoding="utf-8")
    definitions: dict[str, _Definition] = {}
    imports: dict[str, _Place] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            imports.update({alias.asname or alias.name: (alias.name, "") for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            imports.update({alias.asname or alias.name: (node.module, alias.name) for alias in node.names})
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            definitions[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                definitions.update({one.id: node for one in ast.walk(target) if isinstance(one, ast.Name)})
    return _Module(text.splitlines(), definitions, imports)


def _is_left_out(part: ast.AST, attributes: frozenset[str]) -> bool:
    """Return True for a method that is not used. Special methods are."""
    return isinstance(part, ast.FunctionDef) and not part.name.startswith("__") and part.name not in attributes


def _kept_parts(definition: _Definition, attributes: frozenset[str]) -> list[ast.AST]:
    if not isinstance(definition, ast.ClassDef):
        return [definition]
    body = [part for part in definition.body if not _is_left_out(part, attributes)]
    return [*definition.bases, *definition.decorator_list, *body]


def _source(module: _Module, definition: _Definition, attributes: frozenset[str]) -> str:
    """Return the lines of a definition, with comments above it, without the methods that are left out."""
    first, end = _line_range(module, definition)
    left_out = set[int]()
    if isinstance(definition, ast.ClassDef):
        for part in definition.body:
            if _is_left_out(part, attributes):
                start, stop = _line_range(module, part)
                left_out.update(range(start, stop))
                if start and not module.lines[start - 1].strip():
                    left_out.add(start - 1)
    return "\n".join(line for i, line in enumerate(module.lines[first:end], first) if i not in left_out)


def _line_range(module: _Module, part: ast.stmt) -> tuple[int, int]:
    """Return the first line of a definition, its decorators and comments included, and the line behind it."""
    first, end = part.lineno - 1, part.end_lineno or part.lineno
    if isinstance(part, (ast.FunctionDef, ast.ClassDef)) and part.decorator_list:
        first = part.decorator_list[0].lineno - 1
    while first and module.lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return first, end
