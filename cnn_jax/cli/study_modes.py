"""The modes that train or show studies: list, train, report, compare, claims, dry_run and plan."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn_jax import distributed
from cnn_jax.cli.flags import DISTRIBUTED_FLAGS, FLAGS
from cnn_jax.errors import UserError
from cnn_jax.files import expand_path
from cnn_jax.registered_studies import Costs, Studies
from cnn_jax.study import Study


def list_studies(studies: Studies, costs: Costs) -> None:
    """Prints every study, what it is about, its presets and what they cost."""
    for name, presets in costs.items():
        title = studies[name](next(iter(presets))).title
        print(f"{name}: {title}")
        for preset, words in presets.items():
            print(f"  --preset={preset:8}{words}")


def load_study(studies: Studies) -> Study:
    """Returns the study that the flags name, its runs as the flags change them."""
    from cnn_jax import study as library
    from cnn_jax.study import sweep

    found = library.load(FLAGS.experiment, FLAGS.preset, studies)
    changes = list(FLAGS.set)
    if FLAGS["parallel"].present:
        changes.append(f"train.parallel={FLAGS.parallel}")
    if not found.runs:
        takes_none = (
            "run",
            "data",
            "data_dir",
            "set",
            "sweep",
            "seeds",
            "together",
            "share",
            "parallel",
            "overwrite",
            "profile",
        )
        for flag in (*takes_none, *DISTRIBUTED_FLAGS):
            if FLAGS[flag].present:
                raise UserError(f"--{flag}: {found.name} trains nothing, and takes no such flag")
        return found
    configured = library.configure(found, changes, FLAGS.data or "", FLAGS.data_dir or "")
    if not FLAGS.sweep:
        return configured
    return sweep.configure_grid(found, configured, FLAGS.sweep, FLAGS.run)


def choose_workdir(study: Study | None) -> Path:
    """Returns --workdir, or runs/<study>/<preset>-<data>."""
    if FLAGS.workdir:
        return expand_path("--workdir", FLAGS.workdir)
    assert study
    if not study.runs:
        return Path("runs") / study.name
    data = FLAGS.data or next(iter(study.runs.values())).data.name
    data = data.replace("/", "_").replace(":", "_")
    kind = "sweep-" if FLAGS.sweep else ""
    return Path("runs") / study.name / f"{kind}{FLAGS.preset}-{data}"


def train(studies: Studies, program: str) -> None:
    """Trains the study's runs and prints the report.

    Args:
      studies: The studies by name.
      program: How a user starts this program.
    """
    from cnn_jax import study as library

    if FLAGS.share:  # Each launch is one process, even if a scheduler started several.
        for flag in DISTRIBUTED_FLAGS:
            if FLAGS[flag].present:
                raise UserError(f"--share: launches that share runs train alone, without --{flag}")
    else:
        distributed.initialize(FLAGS.coordinator, FLAGS.process_id, FLAGS.num_processes)
    study = load_study(studies)
    try:
        built = library.run(
            study,
            choose_workdir(study),
            seeds=FLAGS.seeds,
            only="*" if FLAGS.sweep else FLAGS.run,
            together=FLAGS.together,
            profile_steps=FLAGS.profile,
            overwrite=FLAGS.overwrite,
            share=FLAGS.share,
            command=compose_command(program),
            tell=lambda line: print(line, flush=True),
        )
    except library.RunsFailedError as error:
        if error.report:
            print(f"\n{error.report.describe()}")
        raise
    if built:
        print(f"\n{built.describe()}")


def compose_command(program: str) -> str:
    """Returns the command of this launch, for all runs of the study.

    Hence --run is left out, except in a sweep, where it selects the runs that the sweep varies.

    Args:
      program: How a user starts this program, such as 'python launch.py'.
    """
    words = []
    names = ("experiment", "preset", "data", "data_dir", "set", "sweep", "seeds", "together")
    for name in (*names, *(["run"] if FLAGS.sweep else []), "workdir", "parallel"):
        if FLAGS[name].present:
            given: Any = FLAGS[name].value
            values = given if name in ("set", "sweep") else [given]
            words += [f"--{name}={value}" for value in values]
    return f"{program} {shlex.join(words)}"


def report(studies: Studies) -> None:
    """Builds the report of what the workdir holds, and prints its table and path."""
    from cnn_jax.report.build import build

    if FLAGS["run"].present and not FLAGS.sweep:
        raise UserError("--run: --report shows every run of the folder; leave it out")
    study = load_study(studies) if FLAGS.experiment else None
    print(f"\n{build(choose_workdir(study)).describe()}")


def compare(folders: Sequence[str]) -> None:
    """Puts finished runs into one table and one figure, in --workdir or runs/compare."""
    from cnn_jax.report.compare import compare as build_comparison

    out = expand_path("--workdir", FLAGS.workdir or "runs/compare")
    built = build_comparison(_join_cut_names(folders), out)
    print(f"\n{built.describe()}")


def _join_cut_names(names: Sequence[str]) -> list[Path]:
    """Returns the folders of --compare, which was cut at each comma, also at those of a name.

    A piece that is no folder is joined with its neighbors if they are one together.
    """
    folders, left = [], list(names)
    while left:
        whole = next(
            (
                n
                for n in range(len(left), 1, -1)
                if not all(expand_path("--compare", name).exists() for name in left[:n])
                and expand_path("--compare", ",".join(left[:n])).exists()
            ),
            1,
        )
        folders.append(expand_path("--compare", ",".join(left[:whole])))
        del left[:whole]
    return folders


def show_claims(folder: str) -> None:
    """Builds the page of all claims below a folder, and prints its tables and path."""
    from cnn_jax.report import all_claims

    print(f"\n{all_claims.build(expand_path('--claims', folder)).describe()}")


def dry_run(study: Study) -> None:
    """Prints what each run costs."""
    from cnn_jax.cost import estimate
    from cnn_jax.study import list_trials, select
    from cnn_jax.training.components import check

    only = "*" if FLAGS.sweep else FLAGS.run
    runs = list_trials(study, only) + select(study, only, FLAGS.seeds)
    for run in runs:
        check(run)
    print(estimate.format_study(runs))


def plan(study: Study) -> None:
    """Prints what each run needs and its lower bound of time, here or on --topology."""
    import json

    if FLAGS.topology is not None:
        import jax

        jax.config.update("jax_platforms", "cpu")  # libtpu must compile and not look for a TPU.
        # Without a TPU JAX cannot read the programs in its cache; `cost.compiled` has another one.
        jax.config.update("jax_enable_compilation_cache", False)
    from cnn_jax.cost.format_plan import CAUTION, format_plan
    from cnn_jax.cost.plan import plan_run
    from cnn_jax.study import select

    plans = []
    for run in select(study, "*" if FLAGS.sweep else FLAGS.run):
        plans.append(plan_run(run, FLAGS.topology))
        if FLAGS.format == "table":
            print(format_plan(plans[-1]), flush=True, end="\n\n")
    values = [plan.to_json() for plan in plans]
    print(json.dumps(values, indent=2) if FLAGS.format == "json" else CAUTION)
