"""The modes that take a model: summary, evaluate, visualize and retrieve."""

import os
import shlex
import sys
from pathlib import Path

from cnn_jax import file_names
from cnn_jax.cli.flags import FLAGS
from cnn_jax.config import Choice, Data, Experiment, choose, parse_dataset
from cnn_jax.errors import UserError, join_messages
from cnn_jax.files import (
    check_writable,
    expand_path,
    find_files,
    make_folder_name,
    name_run_folder,
)


def summarize(name: str) -> None:
    """Prints a model's layers and totals, or every model's totals."""
    import json

    from cnn_jax import models
    from cnn_jax.cost import summary
    from cnn_jax.overrides import override
    from cnn_jax.training.components import KINDS

    for assignment in FLAGS.set:
        if name == "all" or not assignment.startswith("model."):
            raise UserError(
                f"--set {assignment}: --summary takes options of one model, for example"
                " model.shortcut=A"
            )
    if name == "all":
        totals, left_out = summary.summarize_all(FLAGS.image_size)
        for words in left_out:
            print(f"left out: {words}", file=sys.stderr)
        if not totals:
            raise UserError(f"--image_size={FLAGS.image_size} suits no model")
        rows = [total._asdict() for total in totals]
        print(
            json.dumps(rows, indent=2) if FLAGS.format == "json" else summary.format_costs(totals)
        )
        return
    chosen = override(Experiment(model=choose(name)), FLAGS.set, KINDS).model
    found = summary.summarize_model(chosen.name, FLAGS.image_size, **chosen.args)
    deviations = models.describe_deviations(chosen.name, **chosen.args)
    if FLAGS.format == "json":
        rows = [layer._asdict() for layer in found.layers]
        words = {**found.total._asdict(), "deviations": deviations, "layers": rows}
        print(json.dumps(words, indent=2))
        return
    print(summary.format_summary(found, deviations))


def read_protocol() -> Choice:
    """Returns the evaluation protocol of --views and --scales."""
    try:
        scales = tuple(int(scale) for scale in FLAGS.scales)
    except ValueError:
        raise UserError(
            f"--scales={','.join(FLAGS.scales)}: must be comma-separated integers"
        ) from None
    return choose(FLAGS.views, scales=scales or None)


def evaluate(target: str) -> None:
    """Evaluates finished runs below a folder, or public weights, and prints the results."""
    from cnn_jax.evaluation.protocols import make_protocol

    protocol = read_protocol()
    make_protocol(protocol, crop=1, default_scale=1)  # A mistake in it is not each run's own.
    if ":" in target and not os.path.exists(os.path.expanduser(target)):
        _evaluate_weights(target, protocol)
    else:
        _evaluate_runs(target, protocol)


def _evaluate_weights(target: str, protocol: Choice) -> None:
    from cnn_jax import trained
    from cnn_jax.evaluation import evaluate as library
    from cnn_jax.evaluation.evaluation_file import format_evaluation
    from cnn_jax.overrides import override
    from cnn_jax.training.components import KINDS

    model, _, weights = target.partition(":")
    if "://" not in weights:
        weights = str(expand_path("--evaluate", weights))
    if FLAGS["run"].present:
        raise UserError(f"--run={FLAGS.run}: selects runs, and {target} names public weights")
    if not FLAGS.data:
        raise UserError(f"--evaluate={target}: give the images with --data, such as folder:PATH")
    trained.check_settings(FLAGS.set, library.WEIGHTS_TAKE, "public weights")
    data = Data(dataset=parse_dataset(FLAGS.data), dir=FLAGS.data_dir or "")
    chosen = override(Experiment(data=data, model=choose(model)), FLAGS.set, KINDS)
    evaluation = library.evaluate_weights(chosen, weights, protocol, FLAGS.average)
    print(format_evaluation(f"{model}:", evaluation))


def _evaluate_runs(target: str, protocol: Choice) -> None:
    """Evaluates every run that can be, and raises UserError at the end if some cannot."""
    import fnmatch

    from cnn_jax.config_file import read_run
    from cnn_jax.evaluation import evaluate as library
    from cnn_jax.evaluation.evaluation_file import format_evaluation

    for flag in ("data", "set"):
        if FLAGS[flag].present:
            raise UserError(f"--{flag}: a run is evaluated as it was trained, on its own data")
    place = expand_path("--evaluate", target)
    folders = [path.parent for path in find_files(place, file_names.CONFIG)]
    names = {folder: name_run_folder(folder) for folder in folders}
    folders = [folder for folder in folders if fnmatch.fnmatch(names[folder][0], FLAGS.run)]
    if not folders:
        named = f" whose name matches {FLAGS.run}" if FLAGS["run"].present else ""
        raise UserError(f"--evaluate={target}: no run found{named}; give a study's or run's folder")
    failed = []
    for folder in folders:
        name = f"{' '.join(names[folder])}:"
        try:
            run = read_run(folder, FLAGS.data_dir or "")
            evaluations = library.evaluate_run(folder, [protocol], FLAGS.average, experiment=run)
        except library.NotSavedError as error:
            print(f"{name} {error}", file=sys.stderr)
            evaluations = error.results
        except UserError as error:  # The other runs can perhaps still be evaluated.
            failed.append(f"{name} {error}")
            continue
        for evaluation in evaluations.values():
            held_out = run.data.validation_images > 0
            print(format_evaluation(name, evaluation, held_out), flush=True)
    if failed:
        raise UserError(join_messages(failed))


def visualize(target: str, program: str) -> None:
    """Visualizes a trained model: writes the page, and prints its tables and path.

    Args:
      target: The value of --visualize.
      program: How a user starts this program.
    """
    from cnn_jax.visualize.page import build_page

    names = ("visualize", "images", "data_dir", "methods", "layer", "score", "workdir")
    values = {name: FLAGS[name].value for name in names if FLAGS[name].present}
    values |= {"methods": ",".join(FLAGS.methods)} if FLAGS["methods"].present else {}
    given = [f"--{name}={value}" for name, value in values.items()]
    given += [f"--set={setting}" for setting in FLAGS.set]
    built = build_page(
        target,
        FLAGS.images,
        FLAGS.data_dir or "",
        FLAGS.methods,
        expand_path("--workdir", FLAGS.workdir) if FLAGS.workdir else None,
        FLAGS.layer,
        FLAGS.score,
        settings=FLAGS.set,
        command=f"{program} {shlex.join(given)}",
    )
    print(f"\n{built.describe()}")


def retrieve(target: str) -> None:
    """Finds the neighbors of a user's images in a gallery, and prints the path of their page."""
    import dataclasses

    from cnn_jax import trained
    from cnn_jax.evaluation.retrieval.codes import find_layer
    from cnn_jax.evaluation.retrieval.find import find_images
    from cnn_jax.report.retrieval import build_page

    for flag in ("gallery", "query"):
        if not FLAGS[flag].value:
            raise UserError(f"--retrieve={target}: give --{flag} too")
    model = trained.load(target, "--retrieve", FLAGS.set, FLAGS.data_dir or "")
    own = Path("runs") / "retrieve" / make_folder_name(model.name)
    out = expand_path("--workdir", FLAGS.workdir) if FLAGS.workdir else own
    check_writable(out, f"cannot write to {out}", "choose another --workdir")
    index = expand_path("--index", FLAGS.index) if FLAGS.index else out / "index"
    gallery, query = (str(expand_path(f"--{f}", str(FLAGS[f].value))) for f in ("gallery", "query"))
    # Data are decoded by threads where the run had processes of its own.
    model = model._replace(data=dataclasses.replace(model.data, workers=0))
    found = find_images(
        model, gallery, query, index, FLAGS.layer or "", FLAGS.code_size, FLAGS.data_dir or ""
    )
    size = f"{found.index.codes.shape[1]:,} numbers"
    facts = (
        ("model", f"{model.name} ({model.weights})"),
        ("code", f"{find_layer(model, FLAGS.layer or '').name}, {size}"),
        ("gallery", f"{gallery}, {len(found.index.codes):,} images"),
        ("index", f"{index}, {'read' if found.index.was_read else 'written'}"),
    )
    built = build_page(found, out, facts)
    for name, value in facts:
        print(f"{name}: {value}")
    print(f"\n{built.describe()}")
