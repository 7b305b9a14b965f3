"""Pages of the reference: every public function and class, from the docstrings."""

import importlib
import pkgutil

import cnn_jax

# Page -> (its title, the packages and modules that it documents).
PAGES = {
    "runs": (
        "Experiments, studies and training",
        ("config", "study", "tuning", "training"),
    ),
    "models": ("Models", ("models",)),
    "layers": ("Layers", ("layers",)),
    "optim": ("Optimizers and schedules", ("optim",)),
    "data": ("Data and augmentation", ("data",)),
    "evaluation": ("Evaluation", ("evaluation",)),
    "retrieval": ("Retrieval", ("evaluation.retrieval",)),
    "visualize": ("Trained models and visualization", ("trained", "visualize")),
    "pretrained": ("Weights, in and out", ("pretrained", "export")),
    "cost": ("Costs and plans", ("cost",)),
    "report": ("Reports and claims", ("report",)),
    "cpu": ("CPU kernels", ("cpu",)),
}

# What users of the library do not import.
INTERNAL = {
    "cli",
    "commands",
    "experiments",
    "__main__",
    "interrupts",
    "notebook",
    "registry",
    "terminal_tables",
    "text",
    "user_file",
    "values",
}


def list_other_modules() -> tuple[str, ...]:
    """Returns the public modules that no page lists."""
    listed = {name for _, names in PAGES.values() for name in names}
    found = {module.name for module in pkgutil.iter_modules(cnn_jax.__path__)}
    return tuple(sorted(found - listed - INTERNAL))


def list_modules(name: str) -> list[str]:
    """Returns a package's public modules, itself first, without those of another page."""
    module = importlib.import_module(f"cnn_jax.{name}")
    listed = {f"cnn_jax.{other}." for _, names in PAGES.values() for other in names}
    inside = {prefix for prefix in listed if prefix.startswith(f"{module.__name__}.")}
    inside -= {f"{module.__name__}."}
    found = [module.__name__]
    if hasattr(module, "__path__"):
        walk = pkgutil.walk_packages(module.__path__, f"{module.__name__}.")
        found += sorted(m.name for m in walk if "._" not in m.name)
    return [each for each in found if not f"{each}.".startswith(tuple(inside))]


def make_pages() -> dict[str, str]:
    """Returns {file: page}, in Markdown."""
    pages, names = {}, []
    other = {"other": ("Everything else", list_other_modules())}
    for page, (title, packages) in {**PAGES, **other}.items():
        modules = [module for name in packages for module in list_modules(name)]
        names.append(page)
        pages[f"{page}.md"] = f"# {title}\n\n" + "\n".join(map(describe, modules))
    toctree = "```{toctree}\n:maxdepth: 2\n\n" + "\n".join(names) + "\n```\n"
    public = ", ".join(f"`{name}`" for name in cnn_jax.__all__)
    pages["index.md"] = (
        "# Reference\n\nEvery public function and class, from the docstrings. `import cnn_jax`"
        f" offers {public}; the other names are imported from the modules below.\n\n{toctree}"
    )
    return pages


def describe(module: str) -> str:
    """Returns a module's section."""
    title = module.removeprefix("cnn_jax.")
    return f"## {title}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n"
