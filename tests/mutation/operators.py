"""Small changes of source code that a test should notice."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_COMPARISONS = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclass(frozen=True)
class Mutation:
    """One change of a module.

    Attributes:
        number: its place among all changes of the module.
        line: where it is.
        what: the code before and after.
    """

    number: int
    line: int
    what: str


def mutations(source: str) -> list[Mutation]:
    """All changes of a module."""
    return [
        Mutation(number, node.lineno, f"{before} -> {after if after != before else 'the opposite'}")
        for number, (node, before, after) in enumerate(_each(source))
    ]


def mutate(source: str, number: int) -> ast.Module:
    """The module with one change."""
    tree = ast.parse(source)
    changes = list(_changes(tree))
    changes[number][1]()
    return ast.fix_missing_locations(tree)


def _each(source: str) -> Iterator[tuple[ast.AST, str, str]]:
    for number in range(len(list(_changes(ast.parse(source))))):
        node, change = list(_changes(ast.parse(source)))[number]
        before = _shown(node)
        change()
        yield node, before, _shown(node)


def _changes(tree: ast.Module) -> Iterator[tuple[ast.AST, Callable[[], None]]]:
    """Every node that can be changed, with what changes it."""
    unseen = _without_effect(tree)
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
            other = _COMPARISONS[type(node.ops[0])]()
            yield node, lambda node=node, other=other: node.ops.__setitem__(0, other)
        elif isinstance(node, ast.BoolOp):
            flipped = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield node, lambda node=node, flipped=flipped: setattr(node, "op", flipped)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield node, lambda node=node, other=other: setattr(node, "op", other)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node, lambda node=node: setattr(node, "operand", _not(node.operand))
        elif isinstance(node, ast.If | ast.IfExp):
            yield node.test, lambda node=node: setattr(node, "test", _not(node.test))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield node, lambda node=node: setattr(node, "value", not node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, int):
            yield node, lambda node=node: setattr(node, "value", node.value + 1)
        elif isinstance(node, ast.Continue | ast.Break):
            yield node, lambda node=node: setattr(node, "__class__", ast.Pass)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield | ast.YieldFrom):
            nothing = ast.parse("(yield from ())", mode="eval").body
            yield node, lambda node=node, nothing=nothing: setattr(node, "value", nothing)


def _without_effect(tree: ast.Module) -> set[ast.AST]:
    """Annotations, which nobody evaluates."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if isinstance(part := getattr(node, name, None), ast.AST):
                found.update(ast.walk(part))
    return found


def _not(node: ast.expr) -> ast.expr:
    return ast.copy_location(ast.UnaryOp(ast.Not(), node), node)


def _shown(node: ast.AST) -> str:
    return " ".join(ast.unparse(ast.fix_missing_locations(node)).split())[:70]
