"""The command line, called in this process: its output, exit codes and files."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import PIL.Image
import pytest

from cnn_jax import cli, data, mesh, models
from cnn_jax.cli import command
from cnn_jax.config_file import from_json
from cnn_jax.cost import plan as cost_plan
from cnn_jax.files import find_cache_folder
from experiments import COSTS, STUDIES

IMAGENET = ("--experiment=resnet_degradation_imagenet", "--preset=paper")
STUDY = ("--experiment=resnet_degradation", "--preset=smoke")
# Plain-20's recipe, with a model that compiles quickly.
SMOKE = (
    *STUDY,
    "--set=model=mlp",
    "--set=model.hidden=8",
    "--set=data.batch_size=8",
)


@dataclasses.dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def launch(tmp_path, monkeypatch, capsys):
    """Returns launch(*words), which runs a command on one device in a new folder."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "JAX_COMPILATION_CACHE_DIR",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
        "XLA_FLAGS",
    ):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # Restored after the test.
    one = mesh.make_batch_mesh(jax.devices()[:1])
    monkeypatch.setattr(mesh, "make_batch_mesh", lambda devices=None: one)

    def run(*words):
        code = cli.execute(["launch.py", *words], STUDIES, COSTS)
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


def test_every_study_states_its_cost():
    assert COSTS.keys() == STUDIES.keys()


@pytest.mark.parametrize(
    "name, preset", [(name, preset) for name in COSTS for preset in COSTS[name]]
)
def test_every_registered_run_has_valid_choices(name, preset):
    study = STUDIES[name](preset)
    assert {row.run for row in study.rows} <= study.runs.keys()
    for run in study.runs.values():
        assert (run.study, study.preset) == (name, preset)
        assert run.data.name in data.DATASET_INFO and run.model.name in models.MODELS
        assert run.model.args.keys() <= set(models.get_option_types(run.model.name))


MISTAKES = [
    (
        ("--experiment=resnet_degradatoin",),
        "--experiment=resnet_degradatoin: no such study; nearest: resnet_deg",
    ),
    (
        (*STUDY, "--run=plan-20"),
        "--run=plan-20: no such run in resnet_degradation; nearest: plain-20",
    ),
    (("--experiment=resnet_degradation", "--preset=labtop"), "has no such preset; nearest: laptop"),
    (("--experiment=resnet_degradation_imagenet",), "has only preset=paper"),
    (("--experiment=conv_arithmetic", "--preset=smoke"), "has only --preset=laptop"),
    (("--experiment=no/such.py",), "--experiment=no/such.py: no such file"),
    ((*SMOKE, "--data=cifra10"), "no such set; nearest: cifar10"),
    ((*SMOKE, "--set=model=resnet21"), "no such model; nearest: "),
    ((*SMOKE, "--set=optim.learning_rate=0.1"), "no such field; it is now called schedule.base"),
    ((*SMOKE, "--set=train.steps=many"), "--set train.steps=many: must be an integer, not 'many'"),
    ((*SMOKE, "--set=train.label_smoothing=2"), "must be at most 1"),
    (
        (*SMOKE, "--data=cifar10", "--data_dir=nowhere"),
        "cifar10 is not prepared (looked in nowhere): run `python",
    ),
    ((*IMAGENET, "--data_dir=/nowhere"), "imagenet2012 is not prepared"),
    ((*SMOKE, "--workdir=/proc/x"), "cannot write to /proc/x"),
    (("--lst",), "--lst: no such flag; nearest: --list"),
    (("--seeds=0", "--list"), "--seeds=0: must be an integer, at least 1, at most 1,000"),
    (("resnet_degradation",), "resnet_degradation: a flag is --NAME=VALUE"),
    ((), "name a study with --experiment=NAME; --list shows them all"),
    (("--report", "--workdir=empty"), "study.json"),
    (("--evaluate=nowhere",), "--evaluate=nowhere: no run found"),
    (("--evaluate=nowhere", "--run=x"), "no run found whose name matches x"),
    ((*SMOKE, "--data=/"), "no such set; name a folder as folder:/"),
    (("--evaluate=resnet20:weights.pth",), "give the images with --data, such as folder:PATH"),
    (("--summary=vgg_f",), "nearest: vgg_"),
    (("--summary=vgg_d", "--image_size=16"), "images of 16x16; the smallest are 32x32"),
    (("--summary=all", "--set=model.shortcut=A"), "--summary takes options of one model"),
    (("--summary=mlp", "--set=model.shortcut=A"), "mlp has no such option"),
    (("--summary=mlp", "--image_size=99999999999"), "--image_size=99999999999: must be an in"),
    (("--experiment=conv_arithmetic", "--dry_run"), "conv_arithmetic trains nothing"),
    (("--experiment=conv_arithmetic", "--seeds=3"), "--seeds: conv_arithmetic trains nothing"),
    (("--experiment=conv_arithmetic", "--profile=3"), "--profile: conv_arithmetic trains nothing"),
    (("--experiment=conv_arithmetic", "--overwrite"), "--overwrite: conv_arithmetic trains noth"),
    ((*SMOKE, "--together"), "--together: trains several seeds at once"),
    (
        (*SMOKE, "--together", "--seeds=2", "--parallel=pmap"),
        "trained together only with train.parallel=jit",
    ),
    ((*SMOKE, "--sweep=schedule.base"), "write it as field=value,value"),
    ((*SMOKE, "--topology=v5e:4x4"), "only with --plan"),
    ((*SMOKE, "--plan", "--num_processes=2"), "--plan is one process's work"),
    ((*SMOKE, "--plan", "--dry_run"), "--dry_run and --plan: give one of the two"),
    ((*SMOKE, "--views=dense"), "--views: only with --evaluate"),
    ((*SMOKE, "--layer=conv1"), "--layer: only with --visualize or --retrieve"),
    ((*SMOKE, "--evaluate="), "--evaluate: its value is empty"),
    ((*SMOKE, "--compare="), "--compare: its value is empty"),
    ((*SMOKE, "--workdir="), "--workdir: its value is empty"),
    (("--summary=mlp", "--seeds=3"), "--seeds: --summary takes no such flag; leave it out"),
    (("--evaluate=runs", "--data=mnist"), "--data: a run is evaluated as it was trained"),
    (("--evaluate=runs", "--set=train.steps=9"), "--set: a run is evaluated as it was trained"),
    (("--evaluate=mlp:w.pth", "--data=digits", "--set=data.flip=false"), "of public weights only"),
    (("--evaluate=mlp:w.pth", "--data=digits", "--run=x"), "--run=x: selects runs"),
    (("--evaluate=nowhere", "--views=grit"), "nearest: grid"),
    (("--visualize=mlp:untrained", "--set=data.image_size=32"), "of an untrained model only"),
    (("--retrieve=mlp:w.pth", "--gallery=x", "--query=y", "--set=model.hidden=9"), "of public"),
    (("--report", "--workdir=empty", "--run=x"), "--run: --report shows every run"),
    (("--report", "--workdir=empty", "--overwrite"), "--overwrite: --report takes no such flag"),
    ((*SMOKE, "--dry_run", "--share"), "--share: --dry_run takes no such flag"),
    ((*SMOKE, "--plan", "--seeds=2"), "--seeds: --plan takes no such flag"),
]


@pytest.mark.parametrize("words, said", MISTAKES, ids=[said for _, said in MISTAKES])
def test_a_mistake_gives_one_line_and_exit_code_2(words, said, launch, tmp_path):
    done = launch(*words)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir()), "something was left behind"


VALUES = [
    ("schedule.patience=99999999999", "must be at most 2147483647", "schedule=plateau"),
    ("schedule=nothing", "no such schedule; "),
    ("schedule.factor=1e300", "must be at most 1"),
    ("schedule.boundaries=(1,2", "must be comma-separated integers"),
    ("optimizer.momentum=100", "must be less than 1"),
    ("data.color_jitter=-1,0,0,0", "must be at least 0"),
    ("data.color_jitter=inf,0,0,0", "must be a finite number"),
    ("data.pad_and_crop=100000", "must be at most 1024"),
    ("data.pad_and_crop=100", "more than the side of an image, 8"),
    ("data.shift=1000000", "must be at most 1024"),
    ("data.shift=100", "more than the side of an image, 8"),
    ("model.hidden=99999999999", "must be at most"),
    ("train.start_layers=a", "train.start_from"),
    ("train.start_from=nowhere", "starts from nowhere, which is not finished"),
    ("data.image_size=4", "must be one side, or the smallest and largest"),
    ("data.train_resize=8", "data.image_size must be set"),
    ("data.dataset=no_such_set", "no such set"),
    ("data.validation_images=96", "must be less than the 96 training images of fake"),
    ("data.color_jitter=0.1,0.1", "must be 4 numbers: brightness, contrast, saturation, hue"),
    ("data.color_jitter=0,0,0.1,0", "gr", "data.dataset=digits"),
]


@pytest.mark.parametrize("mode", ["train", "--dry_run"])
@pytest.mark.parametrize("case", VALUES, ids=[case[0] for case in VALUES])
def test_an_invalid_value_is_refused_before_anything_is_written(case, mode, launch, tmp_path):
    assignment, said, *before = case
    needs_a_run = "start_from=" in assignment
    if mode == "--dry_run" and needs_a_run:
        pytest.skip("what the workdir holds does not matter to a dry run")
    sets = [f"--set={words}" for words in (*before, assignment)]
    done = launch(*SMOKE, "--run=plain-20", *sets, *([mode] if mode != "train" else []))
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, (
        done.stderr
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        (*SMOKE, "--run=plain-20", f"--workdir={'w' * 300}"),
        ("--report", f"--workdir={'w' * 300}"),
        (f"--evaluate={'w' * 300}",),
        (f"--evaluate=mlp:{'w' * 300}", "--data=digits"),
        (f"--evaluate=mlp:https://localhost/{'w' * 300}", "--data=digits"),
        (f"--compare={'w' * 300}",),
        (f"--claims={'w' * 300}",),
        (*SMOKE, "--data=cifar10", f"--data_dir={'w' * 300}"),
        (*SMOKE, f"--data=folder:{'w' * 300}"),
        (f"--experiment={'w' * 300}/x.py",),
        (*SMOKE, "--run=plain-20", "--workdir=a\0b"),
        (*SMOKE, "--workdir=~no_such_user/runs"),
        (*SMOKE, "--data_dir=gs://x/y", "--data=imagenet2012"),
        (*SMOKE, "--run=plain-20", "--workdir=gs://bucket/runs"),
        ("--report", "--workdir=gs://bucket/runs"),
    ],
    ids=lambda words: words[-1][:20],
)
def test_an_invalid_path_gives_one_line(words, launch, tmp_path):
    done = launch(*words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert len(done.stderr) < 1000 and not list(tmp_path.iterdir())


def test_finished_runs_are_skipped_and_another_configuration_is_refused(launch, tmp_path):
    words = (*SMOKE, "--run=plain-20", "--workdir=here", "--seeds=2")
    done = launch(*words)
    assert done.returncode == 0, done.stderr
    assert "plain-20" in done.stdout and "report: here/report.html" in done.stdout
    assert {p.name for p in (tmp_path / "here").iterdir()} >= {
        "report.md",
        "report.png",
        "report.html",
        "study.json",
    }
    runs = [
        from_json((tmp_path / f"here/plain-20/seed{k}/config.json").read_text()) for k in (0, 1)
    ]
    assert [r.seed for r in runs] == [0, 1] and "train.steps: 64000 -> 2" in runs[0].deviations

    again = launch(*words)
    assert again.returncode == 0 and "(0 s)" in again.stdout
    starts = (tmp_path / "here/plain-20/seed0/starts.jsonl").read_text()
    assert starts.count("\n") == 1

    before = (tmp_path / "here/study.json").read_text()
    assert "--run" not in json.loads(before)["command"]
    other = launch(*words, "--set=optimizer.momentum=0.5")
    assert other.returncode == 2 and "(optimizer.momentum: 0.9 -> 0.5)" in other.stderr
    assert (tmp_path / "here/study.json").read_text() == before
    assert launch("--report", "--workdir=here").returncode == 0
    assert launch("--evaluate=here").returncode == 0


def test_one_run_that_fails_does_not_stop_the_others(launch, tmp_path):
    folder = tmp_path / "here/plain-20/seed0"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"event": "nan", "step": 1}\n')  # It ended so before.
    done = launch(*SMOKE, "--run=*-20", "--workdir=here")
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "the loss was not finite at step 1" in done.stderr
    )
    assert "plain-20 seed 0: failed" in done.stdout and "report: here/report.html" in done.stdout
    last = (tmp_path / "here/resnet-20/seed0/metrics.jsonl").read_text().splitlines()[-1]
    assert {k: v for k, v in json.loads(last).items() if k != "wall_s"} == {
        "event": "end",
        "step": 2,
    }


def test_seeds_trained_together(launch, tmp_path):
    words = (*SMOKE, "--run=plain-20", "--workdir=here", "--together")
    done = launch(*words, "--seeds=2")
    assert done.returncode == 0, done.stderr
    assert all(f"[{k + 1}/2] plain-20 seed {k}: test error" in done.stdout for k in (0, 1)), (
        done.stdout
    )
    assert "2 together)" in done.stdout
    command = json.loads((tmp_path / "here/study.json").read_text())["command"]
    assert "--seeds=2 --together=True" in command

    folder = tmp_path / "here/plain-20/seed1"
    (folder / "metrics.jsonl").write_text('{"event": "nan", "step": 1}\n')  # It ended so before.
    done = launch(*words, "--seeds=2")
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "not finite at step 1" in done.stderr
    )
    assert "seed 0: test error" in done.stdout and "seed 1: failed" in done.stdout


def test_a_sweep_prints_a_table_of_its_grid(launch, tmp_path):
    done = launch(*SMOKE, "--run=plain-20", "--workdir=here", "--sweep=schedule.base=0.01,0.1")
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / "here").iterdir() if path.is_dir()}
    assert made == {"plain-20-base0.01", "plain-20-base0.1"}
    command = json.loads((tmp_path / "here/study.json").read_text())["command"]
    assert "--run=plain-20" in command  # The command repeats this grid and not that of all runs.
    table = done.stdout.partition("[2/2]")[2]
    assert "0.01" in table and "0.1" in table, done.stdout


def test_an_evaluation_goes_on_after_a_run_that_cannot_be_evaluated(launch, tmp_path, monkeypatch):
    held_out = "--set=data.validation_images=16"
    done = launch(*SMOKE, held_out, "--run=plain-20", "--workdir=here", "--seeds=2")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "here/plain-20/seed0/checkpoints")
    done = launch("--evaluate=here")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "plain-20 seed0: " in done.stderr and "seed0" not in done.stdout
    assert "plain-20 seed1: single" in done.stdout
    assert "(16 held-out training images)" in done.stdout
    monkeypatch.chdir(tmp_path / "here/plain-20/seed1")
    done = launch("--evaluate=.", "--run=plain-*")
    assert done.returncode == 0 and "plain-20 seed1: single" in done.stdout, done.stderr


def test_every_run_of_a_sweep_is_planned(launch, monkeypatch):
    planned = []

    class Plan:
        def to_json(self):
            return {}

    def plan_run(run, topology):
        planned.append(run.name)
        return Plan()

    monkeypatch.setattr(cost_plan, "plan_run", plan_run)
    sweep = ("--run=plain-20", "--sweep=schedule.base=0.01,0.1")
    done = launch(*SMOKE, *sweep, "--plan", "--format=json")
    assert done.returncode == 0, done.stderr
    assert planned == ["plain-20-base0.01", "plain-20-base0.1"]


@pytest.mark.parametrize(
    "module, mode, words, continues",
    [
        (command.study_modes, "train", SMOKE, True),
        (command.model_modes, "evaluate", ("--evaluate=runs",), False),
        (command.model_modes, "retrieve", ("--retrieve=mlp:untrained",), False),
    ],
)
def test_ctrl_c_promises_to_continue_only_a_training(
    module, mode, words, continues, launch, monkeypatch
):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, mode, interrupt)
    done = launch(*words)
    assert done.returncode == 130 and "stopped" in done.stderr
    assert ("continues from the last checkpoint" in done.stderr) == continues


@pytest.mark.parametrize(
    "program, name, command",
    [
        ("/venv/bin/cnn-jax", "cnn-jax", "cnn-jax"),
        ("/lib/cnn_jax/__main__.py", "cnn_jax", "python -m cnn_jax"),
        ("launch.py", "launch.py", "python launch.py"),
    ],
)
def test_messages_and_reports_name_the_command_that_was_typed(
    program, name, command, launch, tmp_path, capsys
):
    def run(*words):
        return cli.execute([program, *words], STUDIES, COSTS), capsys.readouterr()

    code, printed = run("--foo")
    assert (code, printed.err.partition(": ")[0]) == (2, name)
    assert run("--help")[1].out.startswith(f"usage: {name} --experiment=NAME")
    assert run("--experiment=conv_arithmetic")[0] == 0
    words = json.loads((tmp_path / "runs/conv_arithmetic/study.json").read_text())["command"]
    assert words == f"{command} --experiment=conv_arithmetic"


def test_help_exits_with_0(launch):
    done = launch("--help")
    assert done.returncode == 0 and not done.stderr
    for words in ("--experiment", "--sweep", "folder:PATH", "TFDS", "--overwrite"):
        assert words in done.stdout


def test_the_help_has_each_flag_once_and_defaults_as_they_are_typed(launch):
    shown = launch("--help").stdout
    assert shown.count("Show this help.") == 1 and "--methods=all\n" in shown


def test_the_list_says_what_each_study_is_about(launch):
    done = launch("--list")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "locality: What local connections and shared weights are worth" in lines
    assert len([line for line in lines if not line.startswith(" ")]) == len(STUDIES)


def test_two_models_are_searched_one_after_the_other_without_a_workdir(launch, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        PIL.Image.new("L", (28, 28), number).save(tmp_path / f"photos/{number}.png")
    for model in ("mlp", "lenet5_modern"):
        done = launch(f"--retrieve={model}:untrained", "--gallery=photos", "--query=photos/0.png")
        assert done.returncode == 0, done.stderr
        assert f"report: runs/retrieve/{model}-untrained/retrieval.html" in done.stdout


def test_the_help_says_that_pmap_draws_other_random_numbers(launch):
    shown = " ".join(launch("--help").stdout.split())
    assert "or pmap, under which dropout and mixup draw other random numbers" in shown


def test_a_model_s_summary_lists_its_deviations(launch):
    done = launch("--summary=alexnet")
    assert done.returncode == 0, done.stderr
    assert "105,415,200" in done.stdout and models.describe_deviations("alexnet")[0] in done.stdout


def test_a_study_without_training_prints_its_report(launch, tmp_path):
    done = launch("--experiment=conv_arithmetic")
    assert done.returncode == 0, done.stderr
    assert "report: runs/conv_arithmetic/report.html" in done.stdout
    made = {p.name for p in (tmp_path / "runs/conv_arithmetic").iterdir()}
    assert made >= {"study.json", "report.md", "report.png", "report.html"}


@pytest.mark.parametrize(
    "flag, environment, kept",
    [
        (None, None, "home/cnn_jax/xla"),
        (None, "theirs", "theirs"),
        (None, "gs://bucket/cache", "gs://bucket/cache"),
        ("mine", "theirs", "mine"),
        ("off", None, None),
    ],
)
def test_the_compile_cache_is_where_the_flag_says(flag, environment, kept, launch, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "home")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", environment or "")
    if environment is None:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    command.prepare_jax(flag)
    assert os.environ.get("JAX_COMPILATION_CACHE_DIR") == kept
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "7"


def test_without_a_home_folder_there_is_no_compile_cache(launch, monkeypatch):
    def homeless(self=None):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert find_cache_folder() is None
    assert launch("--list").returncode == 0


@pytest.mark.filterwarnings("ignore:constrained_layout")  # Long names beside small panels.
def test_every_path_is_expanded(launch, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    done = launch(*SMOKE, "--run=plain-20", "--workdir=~/runs", "--data_dir=~/data")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    run = from_json((tmp_path / "home/runs/plain-20/seed0/config.json").read_text())
    assert run.data.dir == str(tmp_path / "home/data")
    assert launch("--report", "--workdir=~/runs").returncode == 0
    assert launch("--evaluate=~/runs").returncode == 0
    assert launch("--compare=~/runs/plain-20,~/runs", "--workdir=~/both").returncode == 0
    assert launch(*SMOKE, "--data=folder:~/images").stderr.count(str(tmp_path / "home/images")) == 1


def test_a_folder_whose_name_has_commas_is_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "a,b", "c,d,e"):
        (tmp_path / name).mkdir()
    for given, found in (
        (["a", "b"], ["a", "b"]),
        (["c", "d", "e", "a"], ["c,d,e", "a"]),
        (["b", "c", "d", "e"], ["b", "c,d,e"]),
        (["x", "y"], ["x", "y"]),
    ):
        assert command.study_modes._join_cut_names(given) == [Path(name) for name in found]


def test_dry_run_prints_the_cost(launch, tmp_path):
    done = launch(*STUDY, "--set=data.batch_size=8", "--run=plain-20", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "269,722" in done.stdout and not list(tmp_path.iterdir())
