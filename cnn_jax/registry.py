"""Dictionaries of functions, and the choices that name them and their arguments.

The options of a function are its keyword-only parameters; the caller passes the other ones. A
parameter's annotation defines its valid values (`cnn_jax.values`).
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from cnn_jax.config import Choice, check_choice, choose
from cnn_jax.errors import UserError, suggest_names
from cnn_jax.values import convert


def get_option_types(function: Callable) -> dict[str, Any]:
    """Returns {option: type} of a function's keyword-only parameters, in their order."""
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}


def get_defaults(function: Callable) -> dict[str, Any]:
    """Returns {option: default} of a function's keyword-only parameters, in their order."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def look_up(field: str, choice: Choice, registry: Mapping[str, Callable]) -> Callable:
    """Returns the function that a choice names.

    Args:
      field: The name of the choice in messages, such as 'schedule'.
      choice: The name.
      registry: The functions by name.

    Raises:
      UserError: If there is no such function.
    """
    check_choice(field, choice)
    if choice.name not in registry:
        near = suggest_names(choice.name, registry)
        raise UserError(f"{field}={choice.name!r}: no such {field.split('.')[-1]}; {near}")
    return registry[choice.name]


def check_options(field: str, choice: Choice, types: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a choice's arguments, each converted to its type.

    Args:
      field: The name of the choice in messages.
      choice: The arguments.
      types: {option: type}.

    Raises:
      UserError: If an argument is not an option, or its value is invalid.
    """
    for name in choice.args:
        if name not in types:
            known = suggest_names(name, types) if types else "it has none"
            raise UserError(f"{field}.{name}: {choice.name} has no such option; {known}")
    return {k: convert(f"{field}.{k}", v, types[k]) for k, v in choice.args.items()}


def complete(field: str, choice: Choice, registry: Mapping[str, Callable]) -> Choice:
    """Returns the choice with all options, the missing ones with their defaults.

    Raises:
      UserError: As `look_up` and `check_options` do.
    """
    function = look_up(field, choice, registry)
    given = check_options(field, choice, get_option_types(function))
    return choose(choice.name, **get_defaults(function) | given)


def build(field: str, choice: Choice, registry: Mapping[str, Callable], *arguments: Any) -> Any:
    """Calls the function of a choice with the caller's arguments and the choice's own.

    Raises:
      UserError: As `look_up` and `check_options` do.
    """
    function = look_up(field, choice, registry)
    return function(*arguments, **check_options(field, choice, get_option_types(function)))
