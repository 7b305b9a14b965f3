"""Launches in real processes: imports, several devices, signals, kill -9."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import STUDIES

ROOT = Path(__file__).parent.parent
SMOKE = (
    "--experiment=resnet_degradation",
    "--preset=smoke",
    "--set=model=mlp",
    "--set=model.hidden=8",
    "--set=data.batch_size=8",
    "--run=plain-20",
    "--workdir=here",
)


def command(*words):
    return [sys.executable, str(ROOT / "launch.py"), *words]


def launch(*words, cwd, devices=1):
    few = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.run(
        command(*words), capture_output=True, text=True, cwd=cwd, env=few, timeout=300
    )


def test_list_shows_every_study_without_importing_jax(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import launch;code ="
        " launch.cli.execute(['launch.py', '--list'], launch.STUDIES, launch.COSTS);assert not"
        " {'jax', 'numpy', 'matplotlib'} & set(sys.modules), 'too much is imported';"
        " sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in STUDIES)


def test_a_mistake_ends_the_process_with_2(tmp_path):
    done = launch("--experiment=resnet_degradatoin", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(
        "launch.py: --experiment=resnet_degradatoin: no such study"
    )


def test_a_python_without_the_packages_gets_one_line(tmp_path):
    """-S leaves out the folder of installed packages."""
    plain = [sys.executable, "-S", str(ROOT / "launch.py"), "--list"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(plain, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 2 and not done.stdout
    assert re.fullmatch(
        r"launch.py: absl is not installed for \S+: run `make setup` once, and start"
        r" .venv/bin/python launch.py; or install it all with pip install -e '.\[data\]'\n",
        done.stderr,
    )


def test_programs_for_eight_devices_are_cached(tmp_path):
    done = launch(*SMOKE, cwd=tmp_path, devices=8)
    assert done.returncode == 0, done.stderr
    assert list((Path(os.environ["XDG_CACHE_HOME"]) / "cnn_jax/xla").iterdir()), (
        "nothing compiled was kept"
    )
    start = json.loads((tmp_path / "here/plain-20/seed0/starts.jsonl").read_text())
    assert start["hardware"].startswith("8 x CPU")


def interrupt(words, workdir, step, number):
    """Launches, sends a signal when the log has a line of this step, returns the exit code."""
    alone = os.environ | {"XLA_FLAGS": ""}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command(*words), cwd=workdir, env=alone, **quiet)
    log = workdir / "here/plain-20/seed0/metrics.jsonl"
    for _ in range(3000):
        time.sleep(0.02)
        if log.exists() and any(f'"step": {step}' in line for line in log.read_text().splitlines()):
            break
    child.send_signal(number)
    return child.wait(60)


LONG = ("train.steps=100000", "train.save_every=5", "train.log_every=5", "train.eval_every=100000")


def test_a_run_killed_with_kill_9_continues_from_its_last_checkpoint(tmp_path):
    words = (*SMOKE, *(f"--set={each}" for each in LONG))
    assert interrupt(words, tmp_path, 20, signal.SIGKILL) == -signal.SIGKILL
    assert interrupt(words, tmp_path, 60, signal.SIGTERM) == 75
    folder = tmp_path / "here/plain-20/seed0"
    starts = [
        json.loads(line)["step"] for line in (folder / "starts.jsonl").read_text().splitlines()
    ]
    assert starts[0] == 0 and starts[1] >= 10 and starts[1] % 5 == 0
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [e["step"] for e in events if e["event"] == "train"]
    assert steps == list(range(5, 5 * len(steps) + 5, 5)) and steps[-1] >= 60


def test_a_closed_terminal_stops_a_run_saved(tmp_path):
    words = (*SMOKE, *(f"--set={each}" for each in LONG))
    assert interrupt(words, tmp_path, 20, signal.SIGHUP) == 75
    saved = [int(path.name) for path in (tmp_path / "here/plain-20/seed0/checkpoints").iterdir()]
    assert max(saved) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("study", ["vgg_scale_jitter", "lrn", "ten_crop"])
def test_studies_of_full_size_images_run_from_end_to_end(study, tmp_path):
    done = launch(f"--experiment={study}", "--preset=smoke", "--workdir=here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "runs finished" in done.stdout and (tmp_path / "here/report.html").exists()
    assert (
        list((tmp_path / "here").glob("*/seed0/evaluations/*.json"))
        and (tmp_path / "here/crops.png").exists()
    )
