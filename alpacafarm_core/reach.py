"""Which definitions of the core a stage's function can reach, read from the source, not imported.

Starting from the function's body, every name is followed to the top-level definition it stands for,
and on from there. Three things go beyond names: what a text names, such as the entry of a job in
its own process (`train.offline:train`), is reached; what a reached module does when imported
counts; and where a class leaves methods to its subclasses, theirs count too. A name that is
shadowed is followed all the same: too much is reached rather than too little.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

CORE = "alpacafarm_core"
# These change speed and messages, never an answer.
EXEMPT = {f"{CORE}.machine", f"{CORE}.errors"}
# "alpacafarm_core.a.b", "alpacafarm_core.a.b:name" or "a.b:name": the entry of a job.
ENTRY = re.compile(rf"(?:{CORE}\.)?(?P<module>\w+(?:\.\w+)*)(?::(?P<name>\w+))?")


class Symbol(NamedTuple):
    """A top-level name of a module, `Class.method`, or with no name the whole module."""

    module: str
    name: str = ""


class Source:
    """One module as parsed."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.statements = list(_flat(ast.parse(path.read_text()).body))

    @cached_property
    def definitions(self) -> dict[str, list[ast.stmt]]:
        """Statements by the top-level name they bind, `Class.method` included."""
        found: dict[str, list[ast.stmt]] = {}
        for statement in self.statements:
            for name in _binds(statement):
                found.setdefault(name, []).append(statement)
            if isinstance(statement, ast.ClassDef):
                for method in _methods(statement):
                    found[f"{statement.name}.{method.name}"] = [method]
        return found

    @cached_property
    def effects(self) -> list[ast.stmt]:
        """Statements that run on import and bind nothing."""
        imports = (ast.Import, ast.ImportFrom)
        return [s for s in self.statements if not _binds(s) and not isinstance(s, imports)]

    def nodes(self, name: str) -> list[ast.stmt]:
        """The statements of a symbol; of everything but imports when it has no name."""
        if name:
            return self.definitions.get(name, [])
        return [s for s in self.statements if not isinstance(s, (ast.Import, ast.ImportFrom))]


class Tree:
    """The modules below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = cache(self._source)

    def reach(self, start: Symbol) -> dict[Symbol, list[ast.stmt]]:
        """Every symbol that can be reached from `start`, with its statements."""
        reached: dict[Symbol, list[ast.stmt]] = {}
        waiting = [start]
        while waiting:
            symbol = waiting.pop()
            source = self.source(symbol.module)
            if symbol in reached or source is None or self._is_foreign(symbol, start):
                continue
            reached[symbol] = source.nodes(symbol.name)
            statements = reached[symbol] + (source.effects if symbol.name else [])
            waiting += self._uses(source, statements)
            waiting += self._overrides(symbol, reached[symbol])
        return reached

    def _source(self, module: str) -> Source | None:
        path = self.root / module.replace(".", "/")
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return Source(module, file)
        return None

    def _is_foreign(self, symbol: Symbol, start: Symbol) -> bool:
        inside = symbol.module == start.module or f"{symbol.module}.".startswith(f"{CORE}.")
        return not inside or symbol.module in EXEMPT

    def _uses(self, source: Source, statements: Iterable[ast.stmt]) -> Iterator[Symbol]:
        for statement in statements:
            names = self._imports([*source.statements, *ast.walk(statement)])
            for node in ast.walk(statement):
                yield from self._named(source, names, node)

    def _named(self, source: Source, names: dict[str, Symbol], node: ast.AST) -> Iterator[Symbol]:
        match node:
            case ast.Attribute(value=ast.Name(id=held), attr=name) if held in names:
                module = names[held].module
                if not names[held].name:
                    yield self._in_module(module, name)
            case ast.Name(id=name) if name in source.definitions:
                yield Symbol(source.name, name)
            case ast.Name(id=name) if name in names and names[name].name:
                yield names[name]
            case ast.Constant(value=str(text)) if text.startswith(f"{CORE}.") or ":" in text:
                yield from self._entry(text)

    def _entry(self, text: str) -> Iterator[Symbol]:
        found = ENTRY.fullmatch(text)
        module = f"{CORE}.{found['module']}" if found else ""
        if found and self.source(module):
            yield Symbol(module, found["name"] or "")

    def _imports(self, nodes: Iterable[ast.AST]) -> dict[str, Symbol]:
        """What each imported name stands for."""
        names: dict[str, Symbol] = {}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    names[alias.asname or alias.name] = self._in_module(node.module, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    names[alias.asname or alias.name] = Symbol(alias.name)
        return names

    def _in_module(self, module: str, name: str) -> Symbol:
        """A name of a module: a submodule, a definition, or what the module itself imported."""
        if not f"{module}.".startswith(f"{CORE}."):
            return Symbol(module, name)
        if self.source(f"{module}.{name}"):
            return Symbol(f"{module}.{name}")
        source = self.source(module)
        if source and name not in source.definitions:
            return self._imports(source.statements).get(name, Symbol(module))
        return Symbol(module, name)

    def _overrides(self, symbol: Symbol, statements: list[ast.stmt]) -> Iterator[Symbol]:
        """What subclasses anywhere in the core say for methods that a class leaves to them."""
        for statement in statements:
            if isinstance(statement, ast.ClassDef):
                left = {m.name for m in _methods(statement) if _is_left_open(m)}
                yield from self._said_for(statement.name, left) if left else ()

    def _said_for(self, base: str, methods: set[str]) -> Iterator[Symbol]:
        for source, child in self._classes:
            if base in {ast.unparse(b).split("[")[0].split(".")[-1] for b in child.bases}:
                said = {method.name for method in _methods(child)} & methods
                yield from (Symbol(source.name, f"{child.name}.{name}") for name in sorted(said))
                yield from self._said_for(child.name, methods)

    @cached_property
    def _classes(self) -> list[tuple[Source, ast.ClassDef]]:
        files = sorted((self.root / CORE).rglob("*.py"))
        modules = [".".join(f.relative_to(self.root).with_suffix("").parts) for f in files]
        sources = [self.source(m.removesuffix(".__init__")) for m in modules]
        return [
            (source, statement)
            for source in sources
            if source
            for statement in source.statements
            if isinstance(statement, ast.ClassDef)
        ]


def _flat(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, those under `if` and `try` included; docstrings are left out."""
    for statement in body:
        match statement:
            case ast.If(body=first, orelse=second):
                yield from _flat([*first, *second])
            case ast.Try(body=first, handlers=handlers, orelse=second, finalbody=third):
                yield from _flat([*first, *(s for h in handlers for s in h.body), *second, *third])
            case ast.Expr(value=ast.Constant()):
                continue
            case _:
                yield statement


def _binds(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            held = [node for target in targets for node in ast.walk(target)]
            return [node.id for node in held if isinstance(node, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _methods(of: ast.ClassDef) -> list[ast.FunctionDef]:
    return [statement for statement in of.body if isinstance(statement, ast.FunctionDef)]


def _is_left_open(method: ast.FunctionDef) -> bool:
    """Whether the method's body is nothing but a docstring, `...` or NotImplementedError."""
    return all(
        (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        or (isinstance(statement, ast.Raise) and "NotImplementedError" in ast.unparse(statement))
        for statement in method.body
    )


def stage_version(function: ast.FunctionDef) -> int:
    """The version in the decorator `@stage(Kind, version=N)`; 0 when it is no stage."""
    for decorator in function.decorator_list:
        match decorator:
            case ast.Call(func=ast.Name(id="stage"), keywords=keywords):
                for keyword in keywords:
                    match keyword:
                        case ast.keyword(arg="version", value=ast.Constant(value=int(version))):
                            return version
    return 0


def normal(node: ast.AST) -> str:
    """A definition as text, without formatting and what cannot change an answer.

    Left out are docstrings, descriptions and the decorator of a stage; and empty fields, which
    differ between versions of Python.
    """
    return _text(_Bare().visit(deepcopy(node)))


def _text(node: Any) -> str:
    if isinstance(node, list):
        return f"[{','.join(_text(each) for each in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, held) for name, held in ast.iter_fields(node) if held not in (None, [])]
    return f"{type(node).__name__}({','.join(f'{n}={_text(held)}' for n, held in fields)})"


class _Bare(ast.NodeTransformer):
    """Drops bare texts, `description=` and the decorator `@stage`."""

    def visit_Expr(self, node: ast.Expr) -> Any:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> Any:
        node.keywords = [k for k in node.keywords if k.arg != "description"]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        if stage_version(node):
            node.decorator_list = []
        return self.generic_visit(node)
