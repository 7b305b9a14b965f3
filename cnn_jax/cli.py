"""The command line: absl flags become arguments of library functions.

`cnn-jax`, `python -m cnn_jax` and `launch.py` are the same command. JAX is imported only after the
flags are read, because several of them must be known to JAX before it starts.
"""

import io
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging

from cnn_jax import distributed
from cnn_jax.config import Choice, Data, Experiment, choose, dataset
from cnn_jax.errors import STOPPED, StoppedError, UserError, explain_os_error
from cnn_jax.files import expand_path, find_cache_folder
from cnn_jax.study import Study
from cnn_jax.text import printable

Studies = Mapping[str, Callable[[str], Study]]
Costs = Mapping[str, Mapping[str, str]]

FLAGS = flags.FLAGS
_DISTRIBUTED_FLAGS = ("coordinator", "process_id", "num_processes")
# Arguments of library functions that are flags of the same name.
_ARGUMENTS = (
    "experiment",
    "run",
    "preset",
    "workdir",
    "together",
    "sweep",
    "seeds",
    "profile",
    "evaluate",
    "retrieve",
    "gallery",
    "query",
    "layer",
    "code_size",
    "index",
    "share",
    "visualize",
    "images",
    "methods",
    "layer",
)
# Modes that run in one process. The first one that is set is run.
_MODES = (
    "list",
    "summary",
    "evaluate",
    "visualize",
    "retrieve",
    "compare",
    "claims",
    "report",
    "dry_run",
    "plan",
)

flags.DEFINE_bool("list", False, "List every study and what it costs.")
flags.DEFINE_string(
    "experiment",
    None,
    "The study to run: a name of --list, or the path of a Python file that defines study(preset)."
    " Finished runs are skipped, those that were cut off continue.",
)
flags.DEFINE_string("run", "*", "Only runs whose name matches this pattern, such as 'plain-*'.")
flags.DEFINE_string(
    "preset",
    "laptop",
    "Size of the study: laptop (minutes on 2 cores), paper (the paper's recipe in full) or smoke"
    " (two steps of everything); some studies have more.",
)
flags.DEFINE_string(
    "data",
    None,
    "Another data set: digits, mnist, cifar10, folder:PATH (class folders), or a prepared TFDS set,"
    " with the augmentation that suits it.",
)
flags.DEFINE_string("data_dir", None, "Where prepared TFDS folders lie. Default: TFDS's own rule.")
flags.DEFINE_multi_string(
    "set", [], "Another value for one field, such as schedule.base=0.05. May be repeated."
)
flags.DEFINE_multi_string(
    "sweep",
    [],
    "Train a grid of values, such as schedule.base=0.01,0.1,1. Repeated: the product. Values that"
    " hold commas are separated by semicolons.",
)
flags.DEFINE_integer("seeds", 1, "Train each run with the seeds 0 to N - 1.", 1, 1000)
flags.DEFINE_bool(
    "together",
    False,
    "Train the seeds of a run at once, in one program; numbers differ by rounding.",
)
flags.DEFINE_string(
    "workdir", None, "Where the runs are written. Default: runs/<study>/<preset>-<data>."
)
flags.DEFINE_bool(
    "overwrite",
    False,
    "Delete what the workdir holds of these runs, and start them anew. Without it they continue,"
    " also with more steps than before.",
)
flags.DEFINE_bool(
    "share",
    False,
    "Share the runs with other launches of the same command in one --workdir: each takes the next"
    " run that nobody trains, a dead launch's run is taken over, the last one builds the report.",
)
flags.DEFINE_enum(
    "parallel",
    "jit",
    ["jit", "pmap"],
    "How a step is spread over the devices: jit over a mesh, or pmap. Default: the study's.",
)
flags.DEFINE_string(
    "coordinator",
    None,
    "Of several processes that train together: host:port of process 0, or auto, as the launcher or"
    " the TPU slice says; auto is the default where srun, mpirun or Kubernetes' TPU slices started"
    " them.",
)
flags.DEFINE_integer("process_id", None, "Which of several processes this is, from 0.", 0)
flags.DEFINE_integer("num_processes", None, "How many processes train together; 1: only this.", 1)
flags.DEFINE_string(
    "compile_cache",
    None,
    "Where compiled programs are kept for the next launch. Default: ~/.cache/cnn_jax/xla. off:"
    " nowhere.",
)
flags.DEFINE_integer(
    "profile",
    0,
    "Trace so many steps of each run for TensorBoard and XProf, and print the costliest"
    " operations.",
    0,
    10_000,
)
flags.DEFINE_bool("report", False, "Build the report from what the workdir holds; train nothing.")
flags.DEFINE_list("compare", [], "Put finished runs of any folders into one table and one figure.")
flags.DEFINE_string(
    "claims",
    None,
    "Build one page of all claims of all studies, from the claims.json files below this folder.",
)
flags.DEFINE_string(
    "summary", None, "Print a model's layers and what they cost, or a row per model with 'all'."
)
flags.DEFINE_integer(
    "image_size", None, "--summary for square images of this side, not the paper's.", 1, 2**14
)
flags.DEFINE_enum("format", "table", ["table", "json"], "How --summary and --plan print.")
flags.DEFINE_bool(
    "plan",
    False,
    "Compile each run's step, train nothing, and print what it needs and takes at least.",
)
flags.DEFINE_string(
    "topology", None, "--plan for a TPU slice that is not here, such as v5e:4x4; needs libtpu."
)
flags.DEFINE_string(
    "evaluate",
    None,
    "Evaluate what is trained: a study's or run's folder, or MODEL:WEIGHTS for public weights (a"
    " file or an address) with --data.",
)
flags.DEFINE_string(
    "views", "single", "--evaluate by: single, ten_crop, grid, googlenet144, dense or dense+grid."
)
flags.DEFINE_list("scales", [], "--evaluate at these shorter sides, averaged. Default: the run's.")
flags.DEFINE_enum(
    "average", "softmax", ["softmax", "logits"], "--evaluate: what is averaged over the views."
)
flags.DEFINE_string(
    "visualize",
    None,
    "Look into a trained model: a run's folder, or MODEL:WEIGHTS. Writes a page with figures to"
    " --workdir.",
)
flags.DEFINE_string(
    "images",
    "",
    "--visualize for these images: FOLDER of files, or DATASET:N. Default: eight of the run's test"
    " images.",
)
flags.DEFINE_list(
    "methods",
    ["all"],
    "--visualize by: all, or some of saliency, smoothgrad, integrated, guided, gradcam,"
    " guided_gradcam, occlusion, invariance, filters, maps, top, deconvnet, evolution, maximize,"
    " dream, invert.",
)
flags.DEFINE_enum(
    "score",
    "logit",
    ["logit", "log_probability", "probability"],
    "--visualize: what of the class is differentiated.",
)
flags.DEFINE_string(
    "retrieve",
    None,
    "Find the images of --gallery that are nearest to --query, by what is trained: a run's folder,"
    " MODEL:WEIGHTS for public weights, or MODEL:untrained. Writes a page to --workdir.",
)
flags.DEFINE_string(
    "gallery", None, "--retrieve from this folder of images, or a data set's training images."
)
flags.DEFINE_string("query", None, "--retrieve for this image, or each image of this folder.")
flags.DEFINE_string(
    "layer",
    None,
    "--retrieve by this layer, or --visualize it. Default: --retrieve takes an autoencoder's code,"
    " or the last layer before the logits; --visualize the last one with a spatial map.",
)
flags.DEFINE_integer(
    "code_size",
    0,
    "--retrieve by codes that whitened PCA compresses to so many numbers; 0: all of the layer's.",
    0,
    2**20,
)
flags.DEFINE_string(
    "index", None, "--retrieve keeps the gallery's codes here. Default: index in --workdir."
)
flags.DEFINE_bool("dry_run", False, "Print what each run costs, and train nothing.")


def main(studies: Studies | None = None, costs: Costs | None = None) -> NoReturn:
    """Runs the command of sys.argv and exits.

    Args:
      studies: The studies by name; None: those of `cnn_jax.experiments`.
      costs: {study: {preset: what it costs}}, for --list.
    """
    sys.exit(execute(sys.argv, studies, costs))


def execute(argv: Sequence[str], studies: Studies | None = None, costs: Costs | None = None) -> int:
    """Runs a command and returns its exit code.

    0: done. 2: a user's mistake, one line on stderr. 75: stopped and saved. 130: Ctrl-C.

    Args:
      argv: The program's name and its arguments.
      studies: As in `main`.
      costs: As in `main`.
    """
    replace_unprintable()
    program = Path(argv[0]).name
    if studies is None or costs is None:
        studies, costs = _import_studies()
    try:
        _parse(argv)
        if FLAGS["help"].value or FLAGS["helpfull"].value:
            print(_help(program))
            return 0
        _dispatch(studies, costs)
    except UserError as error:
        print(f"{program}: {printable(name_flag(str(error)))}", file=sys.stderr)
        return _leave(2)
    except StoppedError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # The reader of the output, such as head, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _leave(0)
    except OSError as error:
        print(f"{program}: {printable(explain_os_error('stopped', error))}", file=sys.stderr)
        return _leave(2)
    except KeyboardInterrupt:
        words = "stopped; the same command continues from the last checkpoint"
        print(f"\n{program}: {words}", file=sys.stderr)
        return _leave(130)
    except Exception:
        traceback.print_exc()
        return _leave(1)
    return 0


def name_flag(message: str) -> str:
    """Returns a library's message with the flag in place of the argument that it begins with."""
    name = re.match(r"(\w+)[=:]", message)
    return f"--{message}" if name and name[1] in _ARGUMENTS else message


def _leave(code: int) -> int:
    """Returns the code, or ends the process at once if other processes would wait for it."""
    distributed.exit_if_distributed(code)
    return code


def _import_studies() -> tuple[Studies, Costs]:
    try:
        # The installed package contains the folder `experiments`; in a checkout it is not there.
        from cnn_jax.experiments import COSTS, STUDIES  # type: ignore[import-not-found]
    except ImportError:
        from experiments import COSTS, STUDIES  # In a checkout.
    return STUDIES, COSTS


def _parse(argv: Sequence[str]) -> None:
    """Parses the flags again; absl's errors become a UserError."""
    for name in ("help", "helpfull"):
        if name not in FLAGS:
            flags.DEFINE_bool(name, False, "Show this help.")
    for flag in FLAGS.get_flags_for_module(__name__):
        flag.unparse()
    for name in ("help", "helpfull"):
        FLAGS[name].unparse()
    try:
        rest = FLAGS(list(argv), known_only=False)
    except flags.Error as error:
        raise UserError(f"{str(error).splitlines()[0]}; --help shows every flag") from None
    if len(rest) > 1:
        raise UserError(f"{rest[1]}: flags begin with --, see --help")
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Of the libraries.


def _help(program: str) -> str:
    own = [flag for flag in FLAGS.get_flags_for_module(__name__)]
    lines = [f"usage: {program} --experiment=NAME [flags]", ""]
    for flag in own:
        lines.append(f"  --{flag.name}={flag.default!r}" if flag.default else f"  --{flag.name}")
        lines.append(f"      {flag.help}")
    return "\n".join(lines)


def _dispatch(studies: Studies, costs: Costs) -> None:
    if FLAGS.topology is not None and not FLAGS.plan:
        raise UserError(f"--topology={FLAGS.topology}: only with --plan, which compiles for it")
    mode = next((name for name in _MODES if FLAGS[name].value), "")
    given = [name for name in _DISTRIBUTED_FLAGS if FLAGS[name].present]
    if mode and given:
        raise UserError(
            f"--{given[0]}: several processes train together, but --{mode} is one process's work"
        )
    if mode == "list":
        list_studies(costs)
        return
    prepare_jax(FLAGS.compile_cache)
    if mode == "summary":
        summarize(FLAGS.summary)
    elif mode == "evaluate":
        evaluate(FLAGS.evaluate)
    elif mode == "visualize":
        visualize(FLAGS.visualize)
    elif mode == "retrieve":
        retrieve(FLAGS.retrieve)
    elif mode == "compare":
        compare(FLAGS.compare)
    elif mode == "claims":
        show_claims(FLAGS.claims)
    elif FLAGS.experiment is None and not (mode == "report" and FLAGS.workdir):
        raise UserError("name a study with --experiment=NAME; --list shows them all")
    elif mode == "report":
        study = load_study(studies) if FLAGS.experiment else None
        report(workdir(study))
    elif mode == "dry_run":
        dry_run(load_study(studies))
    elif mode == "plan":
        plan(load_study(studies))
    else:
        train(studies)


def prepare_jax(compile_cache: str | None) -> None:
    """Sets what JAX reads when it is imported and when it starts.

    Args:
      compile_cache: Where compiled programs are kept; None: where the environment says, or in the
        user's cache folder; off: nowhere.
    """
    from cnn_jax.cpu import settings

    settings.configure()
    if compile_cache == "off":
        return
    cache = find_cache_folder()
    own = str(cache / "xla") if cache else ""
    kept = compile_cache or os.environ.get("JAX_COMPILATION_CACHE_DIR") or own
    if kept:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(expand_path("--compile_cache", kept))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def list_studies(costs: Costs) -> None:
    """Prints every study, its presets and what they cost."""
    for name, presets in costs.items():
        print(name)
        for preset, words in presets.items():
            print(f"  --preset={preset:8}{words}")


def load_study(studies: Studies) -> Study:
    """Returns the study that the flags name, its runs as the flags change them."""
    from cnn_jax import study as library
    from cnn_jax import sweep

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
        )
        for flag in (*takes_none, *_DISTRIBUTED_FLAGS):
            if FLAGS[flag].present:
                raise UserError(f"--{flag}: {found.name} trains nothing, and takes no such flag")
        return found
    if FLAGS.sweep:
        configured = library.configure(found, changes, FLAGS.data or "", FLAGS.data_dir or "")
        return library.configure(sweep.make_grid(configured, FLAGS.sweep, FLAGS.run))
    return library.configure(found, changes, FLAGS.data or "", FLAGS.data_dir or "")


def workdir(study: Study | None) -> Path:
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


def train(studies: Studies) -> None:
    """Trains the study's runs and prints the report."""
    from cnn_jax import study as library

    if FLAGS.share:  # Each launch is one process, even if a scheduler started several.
        for flag in _DISTRIBUTED_FLAGS:
            if FLAGS[flag].present:
                raise UserError(f"--share: launches that share runs train alone, without --{flag}")
    else:
        distributed.initialize(FLAGS.coordinator, FLAGS.process_id, FLAGS.num_processes)
    study = load_study(studies)
    try:
        built = library.run(
            study,
            workdir(study),
            seeds=FLAGS.seeds,
            only="*" if FLAGS.sweep else FLAGS.run,
            together=FLAGS.together,
            profile_steps=FLAGS.profile,
            overwrite=FLAGS.overwrite,
            share=FLAGS.share,
            command=command(),
            tell=lambda line: print(line, flush=True),
        )
    except library.RunsFailedError as error:
        if error.report:
            print(f"\n{error.report.describe()}")
        raise
    if built:
        print(f"\n{built.describe()}")


def command() -> str:
    """Returns the command that runs the whole study with these flags, without --run."""
    words = ["python", "launch.py"]
    names = ("experiment", "preset", "data", "data_dir", "set", "sweep", "seeds", "together")
    for name in (*names, "workdir", "parallel"):
        if FLAGS[name].present:
            given: Any = FLAGS[name].value
            values = given if name in ("set", "sweep") else [given]
            words += [f"--{name}={value}" for value in values]
    return shlex.join(words)


def report(folder: Path) -> None:
    """Builds the report of a folder, and prints its table and path."""
    from cnn_jax.report.build import build

    print(f"\n{build(folder).describe()}")


def compare(folders: Sequence[str]) -> None:
    """Puts finished runs into one table and one figure, in --workdir or runs/compare."""
    from cnn_jax.report.compare import compare as build_comparison

    out = expand_path("--workdir", FLAGS.workdir or "runs/compare")
    built = build_comparison([expand_path("--compare", folder) for folder in folders], out)
    print(f"\n{built.describe()}")


def show_claims(folder: str) -> None:
    """Builds the page of all claims below a folder, and prints its tables and path."""
    from cnn_jax.report import all_claims

    print(f"\n{all_claims.build(expand_path('--claims', folder)).describe()}")


def replace_unprintable() -> None:
    """Makes stdout and stderr print ? instead of failing for characters they cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


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
    deviations = models.deviations(chosen.name, **chosen.args)
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
            f"--scales={','.join(FLAGS.scales)}: must be integers with commas between"
        ) from None
    return choose(FLAGS.views, scales=scales or None)


def evaluate(target: str) -> None:
    """Evaluates finished runs below a folder, or public weights, and prints the results."""
    import fnmatch

    from cnn_jax.errors import NotFiniteError
    from cnn_jax.evaluation import evaluate as library
    from cnn_jax.overrides import override
    from cnn_jax.training.components import KINDS

    protocol = read_protocol()
    if ":" in target and not os.path.exists(os.path.expanduser(target)):
        model, _, weights = target.partition(":")
        if "://" not in weights:
            weights = str(expand_path("--evaluate", weights))
        if not FLAGS.data:
            raise UserError(
                f"--evaluate={target}: give the images with --data, such as folder:PATH"
            )
        data = Data(dataset=dataset(FLAGS.data), dir=FLAGS.data_dir or "")
        chosen = override(Experiment(data=data, model=choose(model)), FLAGS.set, KINDS)
        evaluation = library.evaluate_weights(chosen, weights, protocol, FLAGS.average)
        print(library.format_evaluation(f"{model}:", evaluation))
        return
    place = expand_path("--evaluate", target)
    folders = [path.parent for path in sorted(place.glob("**/config.json"))]
    folders = [folder for folder in folders if fnmatch.fnmatch(folder.parent.name, FLAGS.run)]
    if not folders:
        raise UserError(f"--evaluate={target}: no run named {FLAGS.run} lies there")
    failed = []
    for folder in folders:
        name = f"{folder.parent.name} {folder.name}:"
        try:
            evaluations = library.evaluate_run(folder, [protocol], FLAGS.average)
        except NotFiniteError as error:  # The other runs can still be evaluated.
            failed.append(f"{name} {error}")
            continue
        except library.NotSavedError as error:
            print(f"{name} {error}", file=sys.stderr)
            evaluations = error.results
        for evaluation in evaluations.values():
            print(library.format_evaluation(name, evaluation), flush=True)
    if failed:
        raise UserError("; ".join(failed))


def visualize(target: str) -> None:
    """Looks into a trained model, writes the page, and prints its tables and its place."""
    from cnn_jax.visualize.page import build_page

    names = ("visualize", "images", "data_dir", "methods", "layer", "score", "workdir")
    values = {name: FLAGS[name].value for name in names if FLAGS[name].present}
    values |= {"methods": ",".join(FLAGS.methods)} if FLAGS["methods"].present else {}
    built = build_page(
        target,
        FLAGS.images,
        FLAGS.data_dir or "",
        FLAGS.methods,
        expand_path("--workdir", FLAGS.workdir) if FLAGS.workdir else None,
        FLAGS.layer,
        FLAGS.score,
        command=shlex.join(["python", "launch.py", *(f"--{k}={v}" for k, v in values.items())]),
    )
    print(f"\n{built.describe()}")


def retrieve(target: str) -> None:
    """Finds a user's images in a gallery, and prints where the page of them lies."""
    import dataclasses

    from cnn_jax.evaluation.retrieval import trained
    from cnn_jax.evaluation.retrieval.find import find_images
    from cnn_jax.overrides import override
    from cnn_jax.report.retrieval import build_page
    from cnn_jax.training.components import KINDS

    for flag in ("gallery", "query"):
        if not FLAGS[flag].value:
            raise UserError(f"--retrieve={target}: give --{flag} too")
    if ":" in target and not os.path.exists(os.path.expanduser(target)):
        name, _, weights = target.partition(":")
        if "://" not in weights and weights != trained.UNTRAINED:
            weights = str(expand_path("--retrieve", weights))
        chosen = override(Experiment(model=choose(name)), FLAGS.set, KINDS)
        model = trained.load_weights(chosen, weights)
    else:
        model = trained.load_run(expand_path("--retrieve", target))
        for assignment in FLAGS.set:
            if not assignment.startswith("data.on_bad_image="):
                raise UserError(f"--set {assignment}: --retrieve takes data.on_bad_image of a run")
        config = override(Experiment(data=model.data), FLAGS.set, KINDS).data
        model = model._replace(data=config)
    out = expand_path("--workdir", FLAGS.workdir or "runs/retrieve")
    index = expand_path("--index", FLAGS.index) if FLAGS.index else out / "index"
    gallery, query = (str(expand_path(f"--{f}", str(FLAGS[f].value))) for f in ("gallery", "query"))
    # Data are decoded by threads where the run had processes of its own.
    model = model._replace(data=dataclasses.replace(model.data, workers=0))
    found = find_images(
        model, gallery, query, index, FLAGS.layer or "", FLAGS.code_size, FLAGS.data_dir or ""
    )
    size = f"{found.index.codes.shape[1]:,} numbers"
    facts = (
        ("model", model.name),
        ("code", f"{trained.find_layer(model, FLAGS.layer or '').name}, {size}"),
        ("gallery", f"{gallery}, {len(found.index.codes):,} images"),
        ("index", f"{index}, {'read' if found.index.was_read else 'written'}"),
    )
    built = build_page(found, out, facts)
    for name, value in facts:
        print(f"{name}: {value}")
    print(f"\n{built.describe()}")


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
        os.environ["JAX_PLATFORMS"] = "cpu"  # libtpu must compile and not look for a TPU.
    from cnn_jax.cost.format_plan import CAUTION, format_plan
    from cnn_jax.cost.plan import plan_run
    from cnn_jax.study import select

    plans = []
    for run in select(study, FLAGS.run):
        plans.append(plan_run(run, FLAGS.topology))
        if FLAGS.format == "table":
            print(format_plan(plans[-1]), flush=True, end="\n\n")
    values = [plan.to_json() for plan in plans]
    print(json.dumps(values, indent=2) if FLAGS.format == "json" else CAUTION)
