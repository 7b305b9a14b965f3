"""Dictionaries of functions and the choices that name them."""

from typing import Annotated

import pytest

from cnn_jax import registry
from cnn_jax.config import choose
from cnn_jax.errors import UserError
from cnn_jax.values import Bound


def step(total, *, base: Annotated[float, Bound(above=0)] = 0.1, edges: tuple[int, ...] = ()):
    return total, base, edges


FUNCTIONS = {"step": step, "steep": step}


def test_options_are_the_keyword_only_parameters():
    assert list(registry.get_option_types(step)) == ["base", "edges"]


def test_a_choice_is_built_with_its_arguments_and_the_caller_s():
    assert registry.build("schedule", choose("step", base=1), FUNCTIONS, 7) == (7, 1.0, ())


def test_a_choice_is_completed_by_defaults():
    assert registry.complete("schedule", choose("step", edges=[3]), FUNCTIONS) == choose(
        "step", base=0.1, edges=(3,)
    )


@pytest.mark.parametrize(
    "choice, words",
    [
        (choose("stp"), "schedule='stp': no such schedule; nearest: step"),
        (choose("step", bse=1.0), "schedule.bse: step has no such option; nearest: base"),
        (choose("step", base=0), "schedule.base=0.0: must be more than 0"),
        (choose("step", base="fast"), "schedule.base=fast: must be a number"),
        (
            choose("step", total=1),
            "schedule.total: step has no such option",
        ),  # The caller's.
    ],
)
@pytest.mark.parametrize("use", [registry.build, registry.complete])
def test_a_wrong_choice_names_the_field(choice, words, use):
    with pytest.raises(UserError, match=words):
        use("schedule", choice, FUNCTIONS, *((7,) if use is registry.build else ()))
