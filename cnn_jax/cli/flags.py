"""Every flag of the command line, and how a command's flags are read."""

import re
import shlex
import shutil
import textwrap
from collections.abc import Sequence

from absl import flags, logging

from cnn_jax.cli import flag_errors
from cnn_jax.errors import UserError

FLAGS = flags.FLAGS
HELP_FLAGS = ("help", "helpfull")  # The second is absl's; here both show the same.
DISTRIBUTED_FLAGS = ("coordinator", "process_id", "num_processes")
# Arguments of library functions that are flags of the same name.
ARGUMENTS = (
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
)
# What a command does if it does not train. The flag of the mode has the same name.
MODES = (
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
_OF_STUDIES = ("train", "report", "dry_run", "plan")
_OF_RUNS = ("train", "dry_run", "plan")
# {flag: the modes that read it}; a flag that is not here may be given with any mode.
_READ_BY = {
    "experiment": _OF_STUDIES,
    "run": (*_OF_STUDIES, "evaluate"),
    "preset": _OF_STUDIES,
    "data": (*_OF_STUDIES, "evaluate"),
    "data_dir": (*_OF_STUDIES, "evaluate", "visualize", "retrieve"),
    "set": (*_OF_STUDIES, "summary", "evaluate", "visualize", "retrieve"),
    "sweep": _OF_STUDIES,
    "seeds": ("train", "dry_run"),
    "together": ("train",),
    "workdir": (*_OF_STUDIES, "visualize", "retrieve", "compare"),
    "overwrite": ("train",),
    "share": ("train",),
    "parallel": _OF_RUNS,
    "profile": ("train",),
    "image_size": ("summary",),
    "format": ("summary", "plan"),
    "topology": ("plan",),
    "views": ("evaluate",),
    "scales": ("evaluate",),
    "average": ("evaluate",),
    "images": ("visualize",),
    "methods": ("visualize",),
    "score": ("visualize",),
    "gallery": ("retrieve",),
    "query": ("retrieve",),
    "layer": ("visualize", "retrieve"),
    "code_size": ("retrieve",),
    "index": ("retrieve",),
}

flags.DEFINE_bool("list", False, "List every study, what it is about and what it costs.")
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
    "Delete these runs from the workdir and start them again. Without it they continue, also with"
    " more steps than before.",
)
flags.DEFINE_bool(
    "share",
    False,
    "Share the runs with other launches of the same command in one --workdir: each takes the next"
    " run that nobody trains, a dead launch's run is taken over, the last one builds the report.",
)
flags.DEFINE_enum(
    "parallel",
    None,
    ["jit", "pmap"],
    "How a step is spread over the devices: jit over a mesh, or pmap, under which dropout and mixup"
    " draw other random numbers. Default: the study's.",
)
flags.DEFINE_string(
    "coordinator",
    None,
    "For several processes that train together: host:port of process 0, or auto, which asks the"
    " launcher or the TPU slice. Default: auto under srun, mpirun and Kubernetes' TPU slices.",
)
flags.DEFINE_integer("process_id", None, "Number of this process among several, from 0.", 0)
flags.DEFINE_integer(
    "num_processes", None, "Number of processes that train together; 1: only this one.", 1
)
flags.DEFINE_string(
    "compile_cache",
    None,
    "Where compiled programs are kept for the next launch. Default: ~/.cache/cnn_jax/xla. off:"
    " nowhere.",
)
flags.DEFINE_integer(
    "profile",
    0,
    "Trace N steps of each run for TensorBoard and XProf, and print the costliest operations. The"
    " first ten steps of a long run on a CPU, which another program makes, are not traced.",
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
    "Compile each run's step, train nothing, and print its memory and a lower bound of its time.",
)
flags.DEFINE_string(
    "topology", None, "--plan for a TPU slice that is not here, such as v5e:4x4; needs libtpu."
)
flags.DEFINE_string(
    "evaluate",
    None,
    "Evaluate trained models: a study's or run's folder, or MODEL:WEIGHTS for public weights (a"
    " file or an address) with --data.",
)
flags.DEFINE_string(
    "views",
    "single",
    "--evaluate by: single, ten_crop, grid, googlenet144, dense, dense+grid or shift.",
)
flags.DEFINE_list("scales", [], "--evaluate at these shorter sides, averaged. Default: the run's.")
flags.DEFINE_enum(
    "average", "softmax", ["softmax", "logits"], "--evaluate: what is averaged over the views."
)
flags.DEFINE_string(
    "visualize",
    None,
    "Look into a trained model: a run's folder, MODEL:WEIGHTS for public weights, or"
    " MODEL:untrained. Writes a page with figures to --workdir.",
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
    " guided_gradcam, occlusion, invariance, statistics, filters, maps, top, deconvnet, evolution,"
    " maximize, dream, invert.",
)
flags.DEFINE_enum(
    "score",
    "logit",
    ["logit", "log_probability", "probability"],
    "--visualize: the class score whose gradient is taken.",
)
flags.DEFINE_string(
    "retrieve",
    None,
    "Find the images of --gallery that are nearest to --query for a model: a run's folder,"
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
    "--retrieve: size of the codes after whitened PCA; 0: no PCA.",
    0,
    2**20,
)
flags.DEFINE_string(
    "index", None, "--retrieve keeps the gallery's codes here. Default: index in --workdir."
)
flags.DEFINE_bool("dry_run", False, "Print what each run costs, and train nothing.")


def find_mode() -> str:
    """Returns the mode that the flags name, or train.

    Raises:
      UserError: If they name several, or one that does not read another flag that is given.
    """
    modes = [name for name in MODES if FLAGS[name].value] or ["train"]
    if len(modes) > 1:
        raise UserError(f"--{modes[0]} and --{modes[1]}: give one of the two")
    mode = modes[0]
    for name in DISTRIBUTED_FLAGS:
        if mode != "train" and FLAGS[name].present:
            raise UserError(
                f"--{name}: several processes train together, but --{mode} is one process's work"
            )
    for name, readers in _READ_BY.items():
        if FLAGS[name].present and mode not in readers:
            if "train" in readers:
                raise UserError(f"--{name}: --{mode} takes no such flag; leave it out")
            raise UserError(f"--{name}: only with {' or '.join(f'--{one}' for one in readers)}")
    return mode


def is_training() -> bool:
    """Returns whether the flags are read and name no mode: the command trains."""
    return FLAGS.is_parsed() and not any(FLAGS[name].value for name in MODES)


def name_flag(message: str) -> str:
    """Returns a library's message with the flag in place of the argument that it begins with."""
    name = re.match(r"(\w+)[=:]", message)
    return f"--{message}" if name and name[1] in ARGUMENTS else message


def parse(argv: Sequence[str]) -> None:
    """Parses the flags again; absl's errors become a UserError."""
    for name in HELP_FLAGS:
        if name not in FLAGS:
            short = "h" if name == "help" else None
            flags.DEFINE_bool(name, False, "Show this help.", short_name=short)
    for flag in FLAGS.get_flags_for_module(__name__):
        flag.unparse()
    for name in HELP_FLAGS:
        FLAGS[name].unparse()
    own = [flag.name for flag in FLAGS.get_flags_for_module(__name__)]
    try:
        rest = FLAGS(list(argv), known_only=False)
    except (flags.Error, ValueError) as error:
        raise UserError(flag_errors.explain(error, argv, own)) from None
    if len(rest) > 1:
        example = "a flag is --NAME=VALUE, such as --experiment=resnet_degradation"
        raise UserError(f"{rest[1]}: {example}; {flag_errors.HELP}")
    for flag in FLAGS.get_flags_for_module(__name__):
        for value in flag.value if isinstance(flag.value, list) else [str(flag.value)]:
            if value.startswith("--") and value[2:].partition("=")[0] in own:
                raise UserError(f"--{flag.name}: its value is missing; {value} is another flag")
        if flag.present and flag.value in ("", []):  # Such as --workdir=$UNSET.
            raise UserError(f"--{flag.name}: its value is empty; give one, or leave the flag out")
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Of the libraries.


def format_help(program: str) -> str:
    """Returns the text of --help."""
    own = [flag for flag in FLAGS.get_flags_for_module(__name__) if flag.name != HELP_FLAGS[1]]
    width = min(100, shutil.get_terminal_size().columns)
    lines = [f"usage: {program} --experiment=NAME [flags]", ""]
    for flag in own:
        default = format_default(flag)
        lines.append(f"  --{flag.name}={shlex.quote(default)}" if default else f"  --{flag.name}")
        lines.append(textwrap.indent(textwrap.fill(get_help(flag), width - 6), " " * 6))
    return "\n".join(lines)


def format_default(flag: flags.Flag) -> str:
    """Returns a flag's default as it is typed; empty: it has none, or nothing is switched on."""
    default = flag.default
    return ",".join(default) if isinstance(default, list) else str(default or "")


def get_help(flag: flags.Flag) -> str:
    """Returns a flag's help without absl's addition that the flag may be repeated."""
    return flag.help.partition(";\n")[0]
