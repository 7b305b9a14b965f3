"""The documentation is true: generated pages, examples, links and commands."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cnn_jax import study
from cnn_jax.cli.flags import FLAGS, find_mode, parse
from cnn_jax.cli.model_modes import read_protocol
from cnn_jax.cli.study_modes import load_study
from cnn_jax.config import Experiment, choose
from cnn_jax.overrides import iterate_fields, override
from cnn_jax.training.components import KINDS
from experiments import STUDIES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
MY_STUDY = ROOT / "tests" / "testdata" / "my_study" / "my_study.py"
# A user's own study stands for that of the tests, "..." for any study.
PLACEHOLDERS = {
    "path/to/my_study.py": str(MY_STUDY),
    "my_study.py": str(MY_STUDY),
    "...": "resnet_degradation",
}
# Numbers of which a page gives several, and those that a launcher fills in.
NUMBERS = {"data.batch_size=B": "data.batch_size=256", "$(JOB_COMPLETION_INDEX)": "0"}
# What examples train is cut to a few steps, so that running them takes seconds.
SHORTER = {
    "train.steps=100": "train.steps=2",
    "steps=200, eval_every=100": "steps=2, eval_every=1",
    "boundaries=(150,)": "boundaries=(1,)",
}


def name_page(path):
    return path.name


def find_blocks(text, language):
    """The texts between ```language and ```."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def find_commands(text):
    """The arguments of every launch.py command of a page, a list each."""
    joined = re.sub(r"\\\n\s*", "", text)
    # A list in YAML has a word in each line.
    joined = re.sub(r"(?<=launch\.py)(\n +- --\S+)+", lambda m: re.sub(r"\n +-", "", m[0]), joined)
    # Code in prose goes over several lines.
    joined = re.sub(r"`launch\.py --[^`]*`", lambda m: " ".join(m[0].split()), joined)
    found = []
    for rest in re.findall(r"launch\.py( --[^`\n]*)", joined):
        # A command inside the quotes of another ends with a quote too many.
        rest = rest.removesuffix("'") if rest.count("'") % 2 else rest
        words = shlex.split(rest, comments=True)
        shell = [i for i, word in enumerate(words) if word in (">", "2>&1", "&", "&&", "|")]
        found.append(words[: min(shell, default=len(words))])
    return found


def find_links(text):
    """Where the links of a page lead, code left out."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def run_python(code, folder):
    """Runs Python with this checkout on the path, in a folder; returns what it printed."""
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "CNN_JAX_ROUTES": "",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, *code]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_generated_pages_are_up_to_date(tmp_path):
    run_python([str(ROOT / "docs" / "make_tables.py"), "--check"], tmp_path)


def shorten(example):
    """The example with few steps, importing the studies from where a checkout has them."""
    for long, short in SHORTER.items():
        example = example.replace(long, short)
    if importlib.util.find_spec("cnn_jax.experiments") is None:  # not installed
        example = example.replace("from cnn_jax.experiments import", "from experiments import")
    return example


README_BLOCKS = find_blocks((ROOT / "README.md").read_text(), "python")


def test_the_readme_has_two_examples_and_both_are_shortened():
    assert len(README_BLOCKS) == 2
    for block in README_BLOCKS:
        assert "steps=2" in shorten(block) and "steps=2" not in block.replace("steps=200", "")
    assert all(any(long in block for block in README_BLOCKS) for long in SHORTER)


@pytest.mark.slow
def test_the_notebook_example_runs(tmp_path):
    printed = run_python(["-c", shorten(README_BLOCKS[0])], tmp_path)
    assert "plain-20" in printed and "ResNet-20" in printed
    made = {path.name for path in (tmp_path / "runs" / "degradation").iterdir()}
    assert made >= {"report.html", "report.md", "report.png", "plain-20", "resnet-20"}


def test_the_library_example_runs(tmp_path):
    check = "\nassert logits.shape == (8, 10) and stages['stem'].shape == (8, 32, 32, 16)"
    printed = run_python(["-c", shorten(README_BLOCKS[1]) + check], tmp_path)
    last = printed.splitlines()[-1]
    assert all(key in last for key in ("'loss': ", "'top1_error': ", "'images': 360"))
    assert (tmp_path / "runs" / "mine" / "resnet-20 on digits" / "seed0" / "config.json").exists()


@pytest.mark.parametrize(
    "page, printed", [("evaluation.md", "% of 360 images"), ("visualize.md", "stage3 (2, 32, 32)")]
)
def test_the_examples_of_a_page_run(page, printed, tmp_path):
    blocks = find_blocks((ROOT / "docs" / page).read_text(), "python")
    assert printed in run_python(["-c", "\n".join(blocks)], tmp_path)


@pytest.mark.parametrize("page", LINKED, ids=name_page)
def test_relative_links_lead_to_files(page):
    targets = find_links(page.read_text())
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    missing = [target for target in local if target and not (page.parent / target).exists()]
    assert not missing


def test_links_and_commands_are_found():
    """No pattern above has ceased to match."""
    readme = (ROOT / "README.md").read_text()
    assert len(find_links(readme)) > 10
    assert find_links("[a](b.md#c)\n```\nd[0](e)\n```\n![f](g.png)") == ["b.md#c", "g.png"]
    assert len(find_commands(readme)) >= 5
    text = "a launch.py --set a=1 \\\n  --sweep 'b=1;2'  # words\n$ ssh 'launch.py --list'\n"
    assert find_commands(text) == [["--set", "a=1", "--sweep", "b=1;2"], ["--list"]]
    listed = "- launch.py\n    - --experiment=lrn\n    - --preset=paper\n  env:\n"
    assert find_commands(listed) == [["--experiment=lrn", "--preset=paper"]]
    assert find_commands("by `launch.py --experiment=lrn\n--plan`, so") == [
        ["--experiment=lrn", "--plan"]
    ]


COMMANDS = [
    pytest.param(command, id=f"{page.name}-{number}")
    for page in PAGES
    for number, command in enumerate(find_commands(page.read_text()), start=1)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_can_be_read(command):
    """Its flags are flags, and its study, runs, fields, values and protocols exist."""
    for placeholder, real in PLACEHOLDERS.items():
        command = [
            word.replace(f"--experiment={placeholder}", f"--experiment={real}") for word in command
        ]
    for number, real in NUMBERS.items():
        command = [word.replace(number, real) for word in command]
    parse(["launch.py", *command])
    flags, mode = FLAGS, find_mode()
    if flags.experiment:
        found = load_study(STUDIES)
        if found.runs:
            assert study.select(found, "*" if flags.sweep else flags.run, flags.seeds)
    elif flags.summary and flags.summary != "all":
        override(Experiment(model=choose(flags.summary)), flags.set, KINDS)
    elif flags.evaluate:
        model = flags.evaluate.partition(":")[0]
        assert "/" in model or model in KINDS["model"].names
        read_protocol()
    else:
        assert mode != "train" or flags.help, command


def list_fields():
    """Every field that --set takes: plain ones, choices, and the options of what they name."""
    fields = {path for path, _, _ in iterate_fields()} | set(KINDS)
    for choice, kind in KINDS.items():
        for name in kind.names or ("folder", "digits"):
            fields |= {f"{choice}.{option}" for option in kind.get_option_types(name)}
    return fields


@pytest.mark.parametrize("page", LINKED, ids=name_page)
def test_every_field_that_a_page_sets_exists(page):
    """In prose too: `--set field=value`."""
    named = re.findall(r"--(?:set|sweep)[ =]'?([\w.]+)=", page.read_text())
    assert set(named) - {"field"} <= list_fields()
