"""Boolean formulas as MLPs: converts any formula to weights of the model `mlp`.

A formula is converted to disjunctive normal form, an OR of ANDs of variables and negated variables.
Each AND becomes a hidden unit with ReLU, whose output is exactly 1 where the AND is true and 0
elsewhere. The output layer computes whether any of them is 1. So one hidden layer is enough for
every formula, but it may need as many units as the truth table has rows (Minsky, Papert 1969,
Sec. 1.2.1, on masks).
"""

import ast
import itertools
from typing import Any, NamedTuple

import numpy as np

from cnn_jax.errors import UserError

Term = frozenset[tuple[str, bool]]  # an AND: its variables, each with the value that it must have


class FormulaMlp(NamedTuple):
    """An MLP that computes a formula.

    Attributes:
      variables: The formula's variables, sorted, which are the inputs.
      terms: The ANDs, one for each hidden unit.
      params: Parameters of `models.create("mlp", 2, hidden=(units,))` for images
        [B, 1, variables, 1] of 0 and 1. Class 1 means true.
      units: Number of hidden units: the number of terms, but at least one.
    """

    variables: tuple[str, ...]
    terms: tuple[Term, ...]
    params: dict[str, Any]
    units: int


def compile_formula(text: str) -> FormulaMlp:
    """Returns an MLP that computes a formula.

    Args:
      text: A formula in Python's syntax, such as '(A and not X) or Y'. It may have variables,
        True, False, `and`, `or`, `not`, `^` (exclusive or) and parentheses.

    Raises:
      UserError: If the text is not such a formula.

    Example:
      mlp = compile_formula("X ^ Y")
      model = models.create("mlp", 2, hidden=(mlp.units,))
      logits, _ = model.apply(mlp.params, {}, list_inputs(2).reshape(4, 1, 2, 1))
    """
    tree = _parse(text)
    variables = find_variables(text)
    if not variables:
        raise UserError(f"formula {text!r}: has no variables")
    terms = tuple(sorted(_simplify(_find_terms(tree, True)), key=sorted))
    units = max(1, len(terms))
    kernel, bias = np.zeros((len(variables), units)), np.zeros(units)
    for unit, term in enumerate(terms):
        # The number of true literals minus the number of literals plus 1: 1 if all are true, else
        # at most 0.
        for variable, value in term:
            kernel[variables.index(variable), unit] = 1 if value else -1
        bias[unit] = 1 - sum(value for _, value in term)
    # The logits are 0.5 for false and the number of true terms for true.
    output = np.zeros((units, 2))
    output[: len(terms), 1] = 1
    params = {
        "Dense_0": {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)},
        "Dense_1": {"kernel": output.astype(np.float32), "bias": np.array([0.5, 0], np.float32)},
    }
    return FormulaMlp(variables, terms, params, units)


def find_variables(text: str) -> tuple[str, ...]:
    """Returns the variables of a formula, sorted."""
    names = {node.id for node in ast.walk(_parse(text)) if isinstance(node, ast.Name)}
    return tuple(sorted(names))


def list_inputs(variables: int) -> np.ndarray:
    """Returns every combination of values, [2^variables, variables] float32 of 0 and 1."""
    return np.array(list(itertools.product((0, 1), repeat=variables)), np.float32)


def evaluate_formula(text: str) -> np.ndarray:
    """Returns the truth table of a formula, [2^variables] bool, in the order of `list_inputs`.

    It evaluates the formula itself, not its normal form.
    """
    tree, variables = _parse(text), find_variables(text)
    rows = list_inputs(len(variables)).astype(bool)
    return np.array([_evaluate(tree, dict(zip(variables, row, strict=True))) for row in rows])


def _parse(text: str) -> ast.expr:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"formula {text!r}: must be like '(A and not X) or Y'") from None
    for node in ast.walk(tree):
        allowed = (ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Name, ast.Constant)
        kinds = (ast.And, ast.Or, ast.Not, ast.BitXor, ast.Load)
        wrong = isinstance(node, ast.Constant) and not isinstance(node.value, bool)
        if wrong or not isinstance(node, allowed + kinds):
            raise UserError(
                f"formula {text!r}: may have only variables, and, or, not, ^, True and False"
            )
    return tree


def _evaluate(node: ast.expr, values: dict[str, bool]) -> bool:
    match node:
        case ast.BoolOp(op=op, values=parts):
            test = all if isinstance(op, ast.And) else any
            return test([_evaluate(part, values) for part in parts])
        case ast.UnaryOp(operand=part):
            return not _evaluate(part, values)
        case ast.BinOp(left=left, right=right):
            return _evaluate(left, values) != _evaluate(right, values)
        case ast.Name(id=name):
            return bool(values[name])
    assert isinstance(node, ast.Constant)
    return bool(node.value)


def _find_terms(node: ast.expr, wanted: bool) -> list[Term]:
    """Returns ANDs whose OR is true exactly where the node has the wanted value."""
    match node:
        case ast.BoolOp(op=op, values=parts):
            each = [_find_terms(part, wanted) for part in parts]
            if isinstance(op, ast.And) != wanted:  # an OR, or the negation of an AND (De Morgan)
                return [term for terms in each for term in terms]
            return [frozenset().union(*terms) for terms in itertools.product(*each)]
        case ast.UnaryOp(operand=part):
            return _find_terms(part, not wanted)
        case ast.BinOp(left=left, right=right):
            return [
                first | second
                for value in (True, False)
                for first in _find_terms(left, value)
                for second in _find_terms(right, value != wanted)
            ]
        case ast.Name(id=name):
            return [frozenset({(name, wanted)})]
    assert isinstance(node, ast.Constant)
    return [frozenset()] if node.value == wanted else []


def _simplify(terms: list[Term]) -> set[Term]:
    """Returns the terms without contradictions and without terms that imply another term."""
    possible = {term for term in terms if len({name for name, _ in term}) == len(term)}
    return {term for term in possible if not any(other < term for other in possible)}
