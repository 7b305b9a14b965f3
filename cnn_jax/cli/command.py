"""Runs a command: reads its flags, calls the function of its mode, and returns the exit code."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cnn_jax.cli import model_modes, study_modes
from cnn_jax.cli.flags import (
    FLAGS,
    HELP_FLAGS,
    find_mode,
    format_help,
    is_training,
    name_flag,
    parse,
)
from cnn_jax.commands import run_command
from cnn_jax.errors import UserError
from cnn_jax.files import expand_path, find_cache_folder
from cnn_jax.registered_studies import Costs, Studies, import_studies


def main(studies: Studies | None = None, costs: Costs | None = None) -> NoReturn:
    """Runs the command of sys.argv and exits.

    Args:
      studies: The studies by name; None: those of `cnn_jax.experiments`.
      costs: {study: {preset: what it costs}}, for --list.
    """
    sys.exit(execute(sys.argv, studies, costs))


def execute(argv: Sequence[str], studies: Studies | None = None, costs: Costs | None = None) -> int:
    """Runs a command and returns its exit code, as `run_command` does.

    Args:
      argv: The program's name and its arguments.
      studies: As in `main`.
      costs: As in `main`.
    """
    program, command = name_program(argv[0])

    def run() -> None:
        found = import_studies() if studies is None or costs is None else (studies, costs)
        try:
            parse(argv)
            if any(FLAGS[name].value for name in HELP_FLAGS):
                print(format_help(program))
            else:
                run_mode(*found, command)
        except UserError as error:
            raise UserError(name_flag(str(error))) from None

    def describe_interrupt() -> str:
        then = "; the same command continues from the last checkpoint" if is_training() else ""
        return f"{program}: stopped{then}"

    return run_command(run, program, describe_interrupt)


def name_program(path: str) -> tuple[str, str]:
    """Returns how messages name a program, and how a user starts it.

    Args:
      path: The program's path, as in sys.argv.

    Example:
      >>> name_program("/src/launch.py"), name_program("/bin/cnn-jax")
      (('launch.py', 'python launch.py'), ('cnn-jax', 'cnn-jax'))
      >>> name_program("/lib/cnn_jax/__main__.py")
      ('cnn_jax', 'python -m cnn_jax')
    """
    file = Path(path)
    if file.name == "__main__.py":
        return file.parent.name, f"python -m {file.parent.name}"
    return file.name, f"python {file.name}" if file.suffix == ".py" else file.name


def run_mode(studies: Studies, costs: Costs, command: str) -> None:
    """Runs the mode that the flags name, or trains.

    Args:
      studies: The studies by name.
      costs: What they cost, for --list.
      command: How a user starts this program, for the commands that reports show.
    """
    mode = find_mode()
    if mode == "list":
        study_modes.list_studies(studies, costs)
        return
    prepare_jax(FLAGS.compile_cache)
    needs_study = mode in ("train", "dry_run", "plan") or (mode == "report" and not FLAGS.workdir)
    if needs_study and FLAGS.experiment is None:
        folder = ", or its folder with --workdir=FOLDER" if mode == "report" else ""
        raise UserError(f"name a study with --experiment=NAME{folder}; --list shows them all")
    match mode:
        case "summary":
            model_modes.summarize(FLAGS.summary)
        case "evaluate":
            model_modes.evaluate(FLAGS.evaluate)
        case "visualize":
            model_modes.visualize(FLAGS.visualize, command)
        case "retrieve":
            model_modes.retrieve(FLAGS.retrieve)
        case "compare":
            study_modes.compare(FLAGS.compare)
        case "claims":
            study_modes.show_claims(FLAGS.claims)
        case "report":
            study_modes.report(studies)
        case "dry_run":
            study_modes.dry_run(study_modes.load_study(studies))
        case "plan":
            study_modes.plan(study_modes.load_study(studies))
        case "train":
            study_modes.train(studies, command)


def prepare_jax(compile_cache: str | None) -> None:
    """Sets XLA's flags and JAX's compile cache. Call it before JAX is imported.

    The compile cache is a folder in which JAX keeps compiled programs for later launches.

    Args:
      compile_cache: The folder; None: that of JAX_COMPILATION_CACHE_DIR, or else one in the user's
        cache folder; off: no cache.
    """
    from cnn_jax.cpu import settings

    settings.configure()
    if compile_cache == "off":
        return
    cache = find_cache_folder()
    own = str(cache / "xla") if cache else ""
    kept = compile_cache or os.environ.get("JAX_COMPILATION_CACHE_DIR") or own
    if kept:
        if "://" not in kept:  # JAX itself writes to addresses, such as gs://bucket/cache.
            kept = str(expand_path("--compile_cache", kept))
        os.environ["JAX_COMPILATION_CACHE_DIR"] = kept
        # The dozens of small programs that draw the initial parameters take 20 ms each to compile.
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.01")
