"""The precision of the products that a model's programs are traced with."""

import re

import jax


def watch_precision(trained):
    """Returns the trained model, and a list that gets the precision of each product it traces."""
    seen = []

    def watch(function):
        def watched(*arguments, **options):
            traced = jax.make_jaxpr(lambda *args: function(*args, **options))(*arguments)
            seen.extend(re.findall(r"precision=\(?(?:Precision\.)?(\w+)", str(traced)))
            return function(*arguments, **options)

        return watched

    model = trained.model
    model = model._replace(apply=watch(model.apply), features=watch(model.features))
    return trained._replace(model=model), seen
