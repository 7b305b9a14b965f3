"""The table of all models, built from the code: sizes counted on the models themselves."""

import importlib

from cnn_jax import models
from cnn_jax.cost.summary import summarize_all
from cnn_jax.pretrained.names import LAYOUTS

HEAD = """# Models

Every model as its paper has it. Parameters and multiply-adds are counted on the model, for the
paper's image size and classes; auxiliary heads are left out of the multiply-adds.
`models.create(NAME)` makes one, `--set model=NAME` trains it in a study. The options of each are in
[the configuration](docs/configuration.md).

| model | parameters | multiply-adds | input | public weights |
|---|---:|---:|---|---|
"""
PUBLISHERS = {"torch": "torchvision, timm", "keras": "Keras"}


def make_page() -> str:
    """Returns the page, in Markdown."""
    costs = {cost.name: cost for cost in summarize_all()[0]}
    rows = []
    for name, spec in models.MODELS.items():
        side = "×".join(map(str, spec.input_shape))
        weights = ", ".join(PUBLISHERS[p] for p, known in LAYOUTS.items() if name in known)
        cost = costs[name]
        rows.append(
            f"| `{name}` | {cost.parameters:,} | {cost.multiply_adds:,} | {side} | {weights} |"
        )
    return HEAD + "\n".join(rows) + "\n\n" + "\n".join(_list_papers())


def _list_papers() -> list[str]:
    """Returns the papers and deviations, a section for each file of models."""
    lines = ["## Papers and deviations", ""]
    by_file: dict[str, list[str]] = {}
    for name, spec in models.MODELS.items():
        by_file.setdefault(spec.module.__module__, []).append(name)
    for module, names in by_file.items():
        summary = (importlib.import_module(module).__doc__ or "").strip().splitlines()[0]
        title = module.rpartition(".")[2]
        lines += [f"### {title}", "", summary, ""]
        for name in names:
            deviations = models.describe_deviations(name)
            if deviations:
                lines.append(f"- `{name}`: {'; '.join(deviations)}")
            else:
                lines.append(f"- `{name}`: no deviation")
        lines.append("")
    return lines
