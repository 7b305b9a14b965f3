"""Runs the papers' studies: `python launch.py --list`, then `python launch.py --experiment=NAME`."""

import dataclasses
import fnmatch
import io
import json
import os
import shlex
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from cnn_jax import distributed
from cnn_jax.config import Data, Experiment, Model, PLACE, Study, check, choose, dataset, differences, flatten, override
from cnn_jax.errors import STOPPED, NotFiniteError, StoppedError, UserError, nearest
from cnn_jax.files import write_whole
from experiments import AUGMENTATION, COSTS, STUDIES

SEVERAL = ("coordinator", "process_id", "num_processes")  # flags of several processes
FLAGS = flags.FLAGS
flags.DEFINE_bool("list", False, "List every study and what it costs.")
flags.DEFINE_string(
    "experiment", None, "The study to run: its runs one by one, finished ones skipped, cut ones continued."
)
flags.DEFINE_string("run", "*", "Only the study's runs whose name matches this pattern, for example 'plain-*'.")
flags.DEFINE_string(
    "preset", "laptop", "laptop: minutes on 2 cores | paper: the paper's recipe | smoke: two steps of all."
)
flags.DEFINE_string("data", None, "Another data set than the preset's: digits | mnist | cifar10.")
flags.DEFINE_string("data_dir", None, "Where prepared TFDS folders lie. Default: TFDS's own rule.")
flags.DEFINE_multi_string(
    "set", [], "Another value for one field, for example schedule.base=0.05. May be repeated."
)
flags.DEFINE_integer("seeds", 1, "Train each run with the seeds 0 to N - 1.", lower_bound=1)
flags.DEFINE_bool("together", False, "Train the seeds of a run at once, in one program; numbers differ by rounding.")
flags.DEFINE_string("workdir", None, "Where the runs are written. Default: runs/<study>/<preset>-<data>.")
flags.DEFINE_enum(
    "parallel", "jit", ["jit", "pmap"], "How a step is spread over the devices: jit over a mesh, or pmap."
)
flags.DEFINE_string(
    "coordinator",
    None,
    "Of several processes that train together: host:port of process 0, or auto: as the launcher or the TPU slice says,"
    " which is the default where srun, mpirun or Kubernetes' TPU slices started them.",
)
flags.DEFINE_integer("process_id", None, "Which one of several processes this is, from 0.", 0)
flags.DEFINE_integer("num_processes", None, "How many processes train together; 1: this one alone.", 1)
flags.DEFINE_string(
    "compile_cache",
    None,
    "Where compiled programs are kept for the next launch. Default: ~/.cache/cnn_jax/xla. off: nowhere.",
)
flags.DEFINE_integer(
    "profile", 0, "Trace so many steps of each run, for TensorBoard and XProf, and print the costliest operations.", 0
)
flags.DEFINE_bool("report", False, "Build the report from what the workdir holds, and train nothing.")
flags.DEFINE_string("summary", None, "Print a net's layers and what they cost, or with 'all' a row a net.")
flags.DEFINE_integer("image_size", None, "--summary for square images of this side, not the paper's.", 1, 2**14)
flags.DEFINE_enum("format", "table", ["table", "json"], "How --summary and --plan print.")
flags.DEFINE_bool(
    "plan",
    False,
    "Compile each run's step, train nothing, and print what it needs and takes at least: before you rent.",
)
flags.DEFINE_string("topology", None, "--plan for a TPU slice that is not here, for example v5e:4x4; needs libtpu.")
flags.DEFINE_string(
    "evaluate",
    None,
    "Test what is trained: a study's or run's folder, or NET:WEIGHTS for public weights (file or address) with --data.",
)
flags.DEFINE_string("views", "single", "--evaluate by: single, ten_crop, grid, googlenet144, dense, or dense+grid.")
flags.DEFINE_list("scales", [], "--evaluate at these shorter sides, averaged. Default: the run's own test_side.")
flags.DEFINE_enum("average", "softmax", ["softmax", "logits"], "--evaluate: what is averaged over the views.")
flags.DEFINE_bool("dry_run", False, "Print each run's configuration and what it costs, and train nothing.")


def main(argv: list[str]) -> None:
    """Does what the flags ask; a user's mistake is one line on stderr and exit code 2."""
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # of the libraries
    keep_compiled(FLAGS.compile_cache)
    try:
        if len(argv) > 1:
            raise UserError(f"{argv[1]}: flags begin with --, see --help")
        if FLAGS.topology is not None and not FLAGS.plan:
            raise UserError(f"--topology={FLAGS.topology}: only with --plan, which compiles for it")
        others = [mode for mode in ("list", "summary", "evaluate", "report", "dry_run", "plan") if FLAGS[mode].value]
        if others and (given := [flag for flag in SEVERAL if FLAGS[flag].present]):
            raise UserError(f"--{given[0]}: several processes train together, but --{others[0]} is one's work")
        if FLAGS.list:
            list_studies()
        elif FLAGS.summary is not None:
            summary(FLAGS.summary)
        elif FLAGS.evaluate is not None:
            evaluate(FLAGS.evaluate)
        elif FLAGS.experiment is None and not (FLAGS.report and FLAGS.workdir):
            raise UserError("name a study with --experiment=NAME; --list shows them all")
        elif FLAGS.report:
            report(workdir())
        elif FLAGS.dry_run:
            dry_run(chosen(study()))
        elif FLAGS.plan:
            plan(study())
        elif not (whole := study()).runs:
            count(whole)
        else:
            train(whole)
    except UserError as e:
        print(f"launch.py: {e}", file=sys.stderr)
        distributed.exit_process(2)
    except StoppedError as e:
        print(f"launch.py: {e}", file=sys.stderr)
        sys.exit(STOPPED)
    except Exception:
        traceback.print_exc()
        distributed.exit_process(1)
    except KeyboardInterrupt:
        print("\nlaunch.py: stopped; the same command continues from the last checkpoint", file=sys.stderr)
        distributed.exit_process(130)


def keep_compiled(folder: str | None) -> None:
    """Has JAX, before its import, keep what it compiles: in `folder`; None: where the environment or else we say."""
    if folder == "off":
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = folder or os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(home / "cnn_jax" / "xla")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = kept
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def list_studies() -> None:
    """Prints every study, its presets and what they cost."""
    for name, costs in COSTS.items():
        print(name)
        for preset, words in costs.items():
            print(f"  --preset={preset:8}{words}")


def summary(name: str) -> None:
    """Prints a net's layers and totals, or every net's totals."""
    from cnn_jax import models
    from cnn_jax.cost.summary import of_net, table

    if wrong := [a for a in FLAGS.set if name == "all" or not a.startswith("model.")]:
        raise UserError(f"--set {wrong[0]}: --summary takes options of one net, for example model.shortcut=A")
    if name == "all":
        totals = []
        for net in models.MODELS:
            try:
                totals.append(of_net(net, FLAGS.image_size)[0])
            except UserError as e:
                print(f"launch.py: left out: {e}", file=sys.stderr)
        if not totals:
            raise UserError(f"--image_size={FLAGS.image_size} suits no net")
        print(json.dumps([t._asdict() for t in totals], indent=2) if FLAGS.format == "json" else table(totals))
        return
    model = dataclasses.asdict(override(Experiment(model=choose(name)), FLAGS.set).model)
    total, layers = of_net(model.pop("name"), FLAGS.image_size, **model)
    deviations = models.deviations(total.name, **model)
    if FLAGS.format == "json":
        rows = [layer._asdict() for layer in layers]
        print(json.dumps({**total._asdict(), "deviations": deviations, "layers": rows}, indent=2))
        return
    print(f"{table(layers)}\n\n{table([total])}")
    print("\nDiffers from the paper:" if deviations else "", *deviations, sep="\n  ")


def study() -> Study:
    """The study that the flags name, its runs as the flags change them."""
    if FLAGS.experiment not in STUDIES:
        raise UserError(f"--experiment={FLAGS.experiment}: no such study; {nearest(FLAGS.experiment, STUDIES)}")
    make = STUDIES[FLAGS.experiment]
    made = make(FLAGS.preset)
    paper = made.recipes or make("paper").runs
    runs = {name: changed(run, paper[name]) for name, run in made.runs.items()}
    return dataclasses.replace(made, runs=runs)


def changed(run: Experiment, paper: Experiment) -> Experiment:
    """The run as the flags change it, with all that then differs from the paper's listed in it."""
    if FLAGS.data:
        suits = AUGMENTATION.get(FLAGS.data, {})
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, dataset=dataset(FLAGS.data), **suits))
    given = [f"data.dir={FLAGS.data_dir}"] if FLAGS.data_dir else []
    run = override(run, [*given, f"train.parallel={FLAGS.parallel}", *FLAGS.set])
    # How often a run is logged, or how it is compiled, changes none of its numbers.
    compiled = ("model.scan_from", "model.remat")
    harmless = (*PLACE, "seed", *compiled, "train.log_every", "train.eval_every", "train.save_every")
    return dataclasses.replace(run, deviations=(*run.deviations, *differences(paper, run, harmless)))


def chosen(whole: Study) -> list[Experiment]:
    """The runs that --run names, each with every seed, and with what its net's deviations from the paper are."""
    from cnn_jax import models

    if not whole.runs:
        raise UserError(f"{whole.name} trains nothing: it counts in seconds")
    if FLAGS.together and FLAGS.seeds == 1:
        raise UserError("--together: wants several seeds, for example --seeds=4")
    names = fnmatch.filter(whole.runs, FLAGS.run)
    if not names:
        raise UserError(f"--run={FLAGS.run}: no such run in {whole.name}; {nearest(FLAGS.run, whole.runs)}")
    runs = []
    for run in map(whole.runs.get, names):
        deviations = (*models.deviations(**dataclasses.asdict(run.model)), *run.deviations)
        runs += [dataclasses.replace(run, seed=seed, deviations=deviations) for seed in range(FLAGS.seeds)]
    return runs


def workdir() -> Path:
    """--workdir, or runs/<study>/<preset>-<data>."""
    if FLAGS.workdir:
        return Path(FLAGS.workdir)
    runs = study().runs
    if not runs:
        return Path("runs") / FLAGS.experiment
    return Path("runs") / FLAGS.experiment / f"{FLAGS.preset}-{FLAGS.data or next(iter(runs.values())).data.name}"


def train(whole: Study) -> None:
    """Trains the chosen runs one by one and ends with the report; a run that fails does not stop the others.

    With --together, the seeds of a run are trained at once.
    """
    distributed.initialize(FLAGS.coordinator, FLAGS.process_id, FLAGS.num_processes)  # before anything brings JAX
    runs, folder = chosen(whole), workdir()
    size = FLAGS.seeds if FLAGS.together else 1  # runs come with each seed after the other
    from cnn_jax.evaluation import evaluate as testing
    from cnn_jax.training import metrics_log
    from cnn_jax.training import train as training

    for run in runs:  # a mistake in the last run is told before the first one starts
        metrics_log.check_folder(run, metrics_log.run_folder(run, folder))
        training.ingredients(run, seeds=size)
    if first := distributed.is_primary():
        write_study(whole, folder)
        write_crops(whole, folder)
    failed = {}  # in order; what ended several seeds is told once
    for start in range(0, len(runs), size):
        run, began = runs[start], time.perf_counter()
        seeds = [one.seed for one in runs[start : start + size]]
        try:
            found = training.run_seeds(run, seeds, folder, FLAGS.profile)
        except UserError as e:
            if distributed.is_distributed():  # it may be this one's alone, and the others wait for it in the same run
                raise
            found = dict.fromkeys(seeds, e)
        took = f"{time.perf_counter() - began:.0f} s" + (f", {size} together" if FLAGS.together else "")
        for number, (seed, end) in enumerate(found.items(), start=start + 1):
            if not isinstance(end, UserError):
                try:
                    testing.evaluate_run(metrics_log.run_folder(dataclasses.replace(run, seed=seed), folder), run.tests)
                except NotFiniteError as e:
                    end = UserError(f"{run.name} seed {seed}: {e}")
            if isinstance(end, UserError):
                failed[end] = None
            words = f"failed: {end}" if isinstance(end, UserError) else f"test error {end['error']:.2%}"
            if first:
                print(f"[{number}/{len(runs)}] {run.name} seed {seed}: {words} ({took})", flush=True)
    if first:
        report(folder)
    if failed:
        raise UserError("; ".join(map(str, failed)))


def count(whole: Study) -> None:
    """Counts what a study's stacks of convolutions cost, and ends with the report."""
    from cnn_jax.cost import summary
    from cnn_jax.training import metrics_log

    for flag in ("run", "data", "data_dir", "set", "seeds", "together", "parallel", *SEVERAL):
        if FLAGS[flag].present:
            raise UserError(f"--{flag}: {whole.name} trains nothing, and takes no such flag")
    counts = [dataclasses.asdict(stack) | summary.count_convolutions(stack) for stack in whole.stacks]
    write_study(whole, workdir(), counts=counts, commit=metrics_log.find_commit())
    report(workdir())


def write_study(whole: Study, folder: Path, **found: Any) -> None:
    """Leaves study.json, from which the report knows the whole table; raises UserError if it is another study's.

    found: what else is to stand in it.
    """
    path = folder / "study.json"
    words = {
        "name": whole.name,
        "title": whole.title,
        "paper": whole.paper,
        "paper_data": whole.paper_data,
        "preset": whole.preset,
        "data": told(next(iter(whole.runs.values())).data) if whole.runs else "",
        "command": command(),
        "seeds": FLAGS.seeds,
        "notes": whole.notes,
        "rows": [dataclasses.asdict(row) for row in whole.rows],
        "claims": [dataclasses.asdict(claim) for claim in whole.claims],
        **found,
    }
    try:
        there = json.loads(path.read_text()) if path.exists() else words
    except (OSError, ValueError):
        there = words  # broken: what it said is said again
    if any(there.get(k, words[k]) != words[k] for k in ("name", "preset", "data")):
        raise UserError(
            f"{folder} holds {there.get('name')} --preset={there.get('preset')} with the data {there.get('data')}:"
            " choose another --workdir"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(words, indent=2) + "\n")
    except OSError as e:
        raise UserError(f"cannot write to {folder} ({e.strerror}): choose another --workdir") from None


def write_crops(whole: Study, folder: Path) -> None:
    """Leaves crops.png, training images as the nets see them, a row for each scale, of a study of full-size images."""
    path = folder / "crops.png"
    each = {
        f"S = {'-'.join(map(str, run.data.train_resize))}": run.data for run in whole.runs.values() if run.data.image_size
    }
    if each and not path.exists():
        from cnn_jax.data import inspect

        image = io.BytesIO()
        inspect.crops(each).savefig(image, format="png", dpi=80)
        write_whole(path, image.getvalue())


def told(data: Data) -> str:
    """The data of a study in words."""
    return data.name + (f", {data.validation_images} training images held out" if data.validation_images else "")


def command() -> str:
    """The command that makes the whole study with these flags: less --run, which chooses some of it."""
    words = ["python", "launch.py"]
    for name in ("experiment", "preset", "data", "data_dir", "set", "seeds", "together", "workdir", "parallel"):
        if FLAGS[name].present:
            values = FLAGS[name].value if name == "set" else [FLAGS[name].value]
            words += [f"--{name}={value}" for value in values]
    return shlex.join(words)


def evaluate(place: str) -> None:
    """Tests the finished runs under a folder, or public weights, by --views at --scales, and prints what is found."""
    from cnn_jax.evaluation import evaluate as testing

    protocol = FLAGS.views + (f"@{','.join(FLAGS.scales)}" if FLAGS.scales else "")
    if not Path(place).exists() and ":" in place:
        net, _, weights = place.partition(":")
        given = Experiment(data=Data(dataset=dataset(FLAGS.data or ""), dir=FLAGS.data_dir or ""), model=choose(net))
        found = testing.evaluate_weights(override(given, FLAGS.set), weights, protocol, FLAGS.average)
        print(testing.describe(f"{net}:", found))
        return
    folders = [path.parent for path in sorted(Path(place).glob("**/config.json"))]
    folders = [folder for folder in folders if fnmatch.fnmatch(folder.parent.name, FLAGS.run)]
    if not folders:
        raise UserError(f"--evaluate={place}: no run named {FLAGS.run} lies there")
    failed = []
    for folder in folders:
        name = f"{folder.parent.name} {folder.name}:"
        try:
            for found in testing.evaluate_run(folder, [protocol], FLAGS.average).values():
                print(testing.describe(name, found), flush=True)
        except NotFiniteError as e:  # the other runs can still be tested
            failed.append(f"{name} {e}")
    if failed:
        raise UserError("; ".join(failed))


def report(folder: Path) -> None:
    """Builds the report of what the folder holds, and prints its table and its place."""
    from cnn_jax.report.build import build

    built = build(folder)
    print(f"\n{built.text}\n\nreport: {built.html}")


def dry_run(runs: list[Experiment]) -> None:
    """Prints each run's full configuration, parameters, multiply-adds an image, steps and estimated time."""
    from cnn_jax.cost import estimate

    for run in runs:
        check(run)
        print(f"{run.name} seed {run.seed}")
        for path, value in flatten(run).items():
            print(f"  {path} = {value!r}")
        for line in estimate.describe(run):
            print(f"  {line}")
        print()


def plan(whole: Study) -> None:
    """Prints what each run needs and takes at least, here or on --topology; a study's seeds cost the same each."""
    if FLAGS.topology is not None:
        os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX starts: libtpu is to compile, and not to look for a TPU
    runs = [run for run in chosen(whole) if not run.seed]
    from cnn_jax.cost import plan as planning

    told = []
    for run in runs:
        told.append(planning.plan_run(run, FLAGS.topology))
        if FLAGS.format == "table":
            print(*planning.describe(told[-1]), "", sep="\n", flush=True)
    if FLAGS.format == "json":
        print(json.dumps(told, indent=2))
    else:
        print(planning.CAUTION)


def parse(argv: list[str]) -> list[str]:
    """absl's parser, whose complaints are a user's mistake like any other."""
    try:
        return FLAGS(argv, known_only=False)
    except flags.Error as e:
        print(f"launch.py: {str(e).splitlines()[0]}; --help shows every flag", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
