"""Plants mistakes into a module by its syntax tree: what counts is what the code says, not how it is laid out on lines."""

import ast
import types
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """One mistake: within `scope`, the code `old` becomes `new`.

    `scope` is a function, or a name that the module assigns. `old` and `new` are Python: an expression each, or statements each.
    Layout, comments, parentheses and quotes of the source do not matter.
    """

    scope: str
    old: str
    new: str


def source_of(module: types.ModuleType) -> str:
    """Return the source text of a module."""
    assert module.__file__ is not None
    return Path(module.__file__).read_text(encoding="utf-8")


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """Return the syntax tree of `source` with the mistake in it. Raises LookupError unless `old` stands once in `scope`."""
    tree = ast.parse(source)
    scopes = [node for node in tree.body if mutant.scope in _names(node)]
    if len(scopes) != 1:
        raise LookupError(f"{mutant.scope} is defined {len(scopes)} times")
    replacement = _Replacement(mutant)
    replacement.visit(scopes[0])
    if replacement.count != 1:
        raise LookupError(f"{mutant.old!r} stands {replacement.count} times in {mutant.scope}")
    return ast.fix_missing_locations(tree)


def loaded(module: types.ModuleType, mutant: Mutant | None = None) -> types.ModuleType:
    """Return another copy of `module`, with the mistake if one is given."""
    source = source_of(module)
    tree = ast.parse(source) if mutant is None else mutated(source, mutant)
    copy = types.ModuleType(module.__name__)
    exec(compile(tree, str(module.__file__), "exec"), copy.__dict__)
    return copy


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


class _Replacement(ast.NodeTransformer):
    """Replaces each node that equals `old`; `count` says how many did."""

    def __init__(self, mutant: Mutant) -> None:
        self.count = 0
        old, new = ast.parse(mutant.old).body, ast.parse(mutant.new).body
        expressions = [node.value for node in (*old, *new) if isinstance(node, ast.Expr)]
        self._new: ast.AST | list[ast.stmt] = new
        replaced: ast.AST = old[0]
        if len(old) == len(new) == 1 and len(expressions) == 2:
            replaced, self._new = expressions
        assert len(old) == 1, "a mistake replaces one statement"
        self._kind, self._old = type(replaced), ast.dump(replaced)

    def visit(self, node: ast.AST) -> ast.AST | list[ast.stmt]:
        # The text of a node is as long as all that is in it.
        if type(node) is self._kind and ast.dump(node) == self._old:
            self.count += 1
            return self._new
        self.generic_visit(node)
        return node
