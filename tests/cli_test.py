"""launch.py as a user calls it: what it prints, exits with, and leaves; a run killed with kill -9 goes on."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnn_jax import data, models
from cnn_jax.config import Data, Experiment, choose, from_json
from cnn_jax.cost import estimate
from experiments import COSTS, STUDIES

ROOT = Path(__file__).parent.parent
IMAGENET = ("--experiment=resnet_degradation_imagenet", "--preset=paper")
SMOKE = ("--experiment=resnet_degradation", "--preset=smoke", "--set=data.batch_size=8")


def command(*words):
    return [sys.executable, str(ROOT / "launch.py"), *words]


def launch(*words, cwd, devices=1):
    few = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.run(command(*words), capture_output=True, text=True, cwd=cwd, env=few, timeout=300)


def test_list_shows_every_study_without_importing_jax(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import launch;"
        "launch.FLAGS(['launch.py', '--list']); launch.main(['launch.py']);"
        "assert not {'jax', 'numpy', 'matplotlib'} & set(sys.modules), 'too much is imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in STUDIES)


def test_every_study_tells_its_costs():
    assert COSTS.keys() == STUDIES.keys()


@pytest.mark.parametrize("name, preset", [(name, preset) for name in COSTS for preset in COSTS[name]])
def test_every_registered_run_names_things_that_are(name, preset):
    study = STUDIES[name](preset)
    assert {row.run for row in study.rows} == study.runs.keys()
    for run in study.runs.values():
        assert (run.study, study.preset) == (name, preset)
        assert run.data.name in data.DATASET_INFO and run.model.name in models.MODELS
        options = {k: v for k, v in vars(run.model).items() if k != "name" and v is not None}
        assert options.keys() <= set(models.known_options(run.model.name))


@pytest.mark.parametrize(
    "words, said",
    [
        (("--experiment=resnet_degradatoin",), "no such study; nearest: resnet_degradation"),
        (("--experiment=resnet_degradation", "--run=plan-20"), "no such run in resnet_degradation; nearest: plain-20"),
        (("--experiment=resnet_degradation", "--preset=labtop"), "no such preset; nearest: laptop"),
        (("--experiment=resnet_degradation_imagenet",), "has only --preset=paper"),
        ((*SMOKE, "--data=cifra10"), "no such set; nearest: cifar10"),
        ((*SMOKE, "--set=model=resnet21"), "no such net; nearest: "),
        ((*SMOKE, "--set=optim.lr=0.1"), "--set optim.lr: no such field; nearest: schedule.base"),
        ((*SMOKE, "--set=train.steps=many"), "wants an integer, not 'many'"),
        ((*SMOKE, "--data=cifar10", "--data_dir=nowhere"), "cifar10 is not prepared (looked in nowhere): run `python"),
        ((*SMOKE, "--workdir=/proc/x"), "cannot write to /proc/x"),
        (
            ("--experiment=resnet_degradation_imagenet", "--preset=paper", "--data_dir=/nowhere"),
            "imagenet2012 is not prepared",
        ),
        (("--lst",), "Unknown command line flag 'lst'"),
        (("--seeds=0", "--list"), "flag --seeds=0"),
        (("resnet_degradation",), "flags begin with --"),
        ((), "name a study with --experiment=NAME; --list shows them all"),
        (("--report", "--workdir=empty"), "study.json"),
        (("--summary=vgg_f",), "no such net; nearest: vgg_"),
        (("--summary=vgg_d", "--image_size=16"), "images of 16x16; the smallest are 32x32"),
        (("--experiment=conv_arithmetic", "--dry_run"), "conv_arithmetic trains nothing"),
        ((*SMOKE, "--together"), "--together: wants several seeds, for example --seeds=4"),
        ((*SMOKE, "--together", "--seeds=2", "--parallel=pmap"), "seeds are trained together only with --parallel=jit"),
        (("--experiment=conv_arithmetic", "--seeds=3"), "--seeds: conv_arithmetic trains nothing"),
        (("--summary=all", "--set=model.shortcut=A"), "--summary takes options of one net"),
        (("--summary=mlp", "--set=model.shortcut=A"), "mlp has no such option"),
        (("--summary=mlp", "--image_size=99999999999"), "flag --image_size"),
        ((*SMOKE, "--set=train.label_smoothing=2"), "train.label_smoothing=2.0: wants at most 1"),
        (("--experiment=conv_arithmetic", "--preset=smoke"), "has only --preset=laptop"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, said, tmp_path):
    done = launch(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_a_study_runs_is_skipped_when_finished_and_refuses_another_configuration(tmp_path):
    words = (*SMOKE, "--run=plain-20", "--workdir=here", "--seeds=2")
    done = launch(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "plain-20" in done.stdout and "ResNet-20" in done.stdout and "report: here/report.html" in done.stdout
    assert "2 of 22 runs finished" in done.stdout and "Missing:" in done.stdout
    assert list((Path(os.environ["XDG_CACHE_HOME"]) / "cnn_jax/xla").iterdir()), "nothing compiled was kept"
    assert {p.name for p in (tmp_path / "here").iterdir()} >= {"report.md", "report.png", "report.html", "study.json"}
    runs = [from_json((tmp_path / f"here/plain-20/seed{k}/config.json").read_text()) for k in (0, 1)]
    assert [r.seed for r in runs] == [0, 1] and "train.steps: 64000 -> 2" in runs[0].deviations

    again = launch(*words, cwd=tmp_path)
    assert again.returncode == 0 and "(0 s)" in again.stdout
    starts = (tmp_path / "here/plain-20/seed0/starts.jsonl").read_text()
    assert starts.count("\n") == 1

    before = (tmp_path / "here/study.json").read_text()
    assert "--run" not in json.loads(before)["command"]
    other = launch(*words, "--set=optimizer.momentum=0.5", cwd=tmp_path)
    assert other.returncode == 2 and "(optimizer.momentum: 0.9 -> 0.5)" in other.stderr
    assert (tmp_path / "here/study.json").read_text() == before
    assert launch("--report", "--workdir=here", cwd=tmp_path).returncode == 0


def test_on_eight_devices_one_run_that_fails_does_not_stop_the_others(tmp_path):
    folder = tmp_path / "here/plain-20/seed0"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"event": "nan", "step": 1}\n')  # it ended so before
    done = launch(*SMOKE, "--run=*-20", "--workdir=here", cwd=tmp_path, devices=8)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "the loss was not finite at step 1" in done.stderr
    assert "plain-20 seed 0: failed" in done.stdout and "report: here/report.html" in done.stdout
    last = (tmp_path / "here/resnet-20/seed0/metrics.jsonl").read_text().splitlines()[-1]
    assert {k: v for k, v in json.loads(last).items() if k != "wall_s"} == {"event": "end", "step": 2}


def test_seeds_trained_together(tmp_path):
    words = (*SMOKE, "--run=plain-20", "--workdir=here", "--together")
    done = launch(*words, "--seeds=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(f"[{k + 1}/2] plain-20 seed {k}: test error" in done.stdout for k in (0, 1)), done.stdout
    assert "2 together)" in done.stdout and "2 of 22 runs finished" in done.stdout
    told = json.loads((tmp_path / "here/study.json").read_text())["command"]
    assert "--seeds=2 --together=True" in told

    folder = tmp_path / "here/plain-20/seed1"
    (folder / "metrics.jsonl").write_text('{"event": "nan", "step": 1}\n')  # it ended so before
    done = launch(*words, "--seeds=2", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "not finite at step 1" in done.stderr
    assert "seed 0: test error" in done.stdout and "seed 1: failed" in done.stdout


def test_summary_of_all_nets_as_json(tmp_path):
    done = launch("--summary=all", "--format=json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    nets = {net["name"]: net for net in json.loads(done.stdout)}
    assert list(nets) == list(models.MODELS) and not list(tmp_path.iterdir())
    assert nets["inception_v3"]["parameters"] == 23_834_568 and nets["resnet1202"]["parameters"] == 19_421_274
    assert round(nets["vgg_e"]["multiply_adds"] / 1e9, 1) == 19.6


def test_summary_of_a_net_tells_in_what_it_is_not_the_paper_s(tmp_path):
    done = launch("--summary=alexnet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "105,415,200" in done.stdout and models.deviations("alexnet")[0] in done.stdout


def test_a_study_that_counts_ends_in_its_report(tmp_path):
    done = launch("--experiment=conv_arithmetic", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "208,896" in done.stdout and "report: runs/conv_arithmetic/report.html" in done.stdout
    made = {p.name for p in (tmp_path / "runs/conv_arithmetic").iterdir()}
    assert made == {"study.json", "report.md", "report.png", "report.html"}


@pytest.mark.parametrize(
    "flag, environment, kept",
    [(None, None, "home/cnn_jax/xla"), (None, "theirs", "theirs"), ("mine", "theirs", "mine"), ("off", None, None)],
)
def test_what_is_compiled_is_kept_where_the_user_says(flag, environment, kept, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "home")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", environment or "")
    if environment is None:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    import launch as script

    script.keep_compiled(flag)
    assert os.environ.get("JAX_COMPILATION_CACHE_DIR") == kept
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "7"


def test_dry_run_prints_every_field_and_the_cost(tmp_path):
    done = launch(*SMOKE, "--run=plain-20", "--dry_run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in (
        "schedule.boundaries = (32000, 48000)",
        "data.dataset = 'fake'",
        "parameters: 269,722",
        "estimated time: ",
    ):
        assert words in done.stdout
    assert not list(tmp_path.iterdir())


def killed_in_the_middle(words, workdir, step):
    """Launches and sends SIGKILL once a line of a later step than `step` is in the log."""
    alone = os.environ | {"XLA_FLAGS": ""}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command(*words), cwd=workdir, env=alone, **quiet)
    log = workdir / "here/plain-20/seed0/metrics.jsonl"
    for _ in range(3000):
        time.sleep(0.02)
        if log.exists() and any(f'"step": {step}' in line for line in log.read_text().splitlines()):
            break
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it ended before it could be killed"


def test_a_run_killed_with_kill_9_goes_on_from_its_last_checkpoint(tmp_path):
    every = ("train.steps=60", "train.save_every=5", "train.log_every=5", "train.eval_every=60")
    words = (*SMOKE, "--run=plain-20", "--workdir=here", *(f"--set={e}" for e in every))
    killed_in_the_middle(words, tmp_path, step=20)
    done = launch(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "here/plain-20/seed0"
    starts = [json.loads(line)["step"] for line in (folder / "starts.jsonl").read_text().splitlines()]
    assert starts[0] == 0 and 10 <= starts[1] < 60 and starts[1] % 5 == 0
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "train"] == list(range(5, 65, 5))


@pytest.mark.slow
@pytest.mark.parametrize("study", ["vgg_scale_jitter", "lrn", "ten_crop"])
def test_the_studies_of_full_size_images_go_from_end_to_end(study, tmp_path):
    done = launch(f"--experiment={study}", "--preset=smoke", "--workdir=here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "runs finished" in done.stdout and (tmp_path / "here/report.html").exists()
    assert list((tmp_path / "here").glob("*/seed0/tests/*.json")) and (tmp_path / "here/crops.png").exists()
