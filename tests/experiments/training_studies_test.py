"""What the studies of training measure, on runs that are written by hand."""

import json

import pytest
from helpers.report_folders import read_folder, write_run, write_study

from cnn_jax.report.reading.folder import read
from cnn_jax.tuning import Tuning
from experiments import activations, initialization
from experiments.batch_norm import measure, page
from experiments.batch_norm.measure import NORMALIZED, PLAIN


def make_layer(std=1.0, units=((0, 1, 2),), **more):
    words = {"layer": "x", "kind": "Dense", "units": units}
    for prefix in ("", "grad_"):
        spread = {"mean": 0.0, "std": std, "low": -1.0, "high": 1.0, "counts": [1]}
        words |= {prefix + key: value for key, value in spread.items()}
    return words | more


def write_layers(place, lines):
    text = "".join(json.dumps({"step": s, "layers": layers}) + "\n" for s, layers in lines.items())
    (place / "layers.jsonl").write_text(text)


SIGMOID = {"saturated": 0.0, "dead": 0.0}


@pytest.fixture
def two_nets(tmp_path):
    """Without: errors 50, 30, 20; with: 30, 20, 10. Medians go 1, 2, 4 and 1, 1.5, 1.5."""
    write_study(tmp_path, PLAIN, NORMALIZED)
    for name, errors, medians in (
        (PLAIN, (0.5, 0.3, 0.2), (1, 2, 4)),
        (NORMALIZED, (0.3, 0.2, 0.1), (1, 1.5, 1.5)),
    ):
        place = write_run(tmp_path, name, errors=errors, train=(0.5,))
        lines = {
            100 * i: [
                make_layer(units=[[9, 9, 9]], **SIGMOID),
                make_layer(units=[[m - 1, m, m + 1], [0, 0, 4]]),
                make_layer(**SIGMOID),
                make_layer(),
            ]
            for i, m in enumerate(medians)
        }
        write_layers(place, lines)
    return tmp_path


def test_batch_norm_s_speed_is_the_share_of_the_steps(two_nets):
    # 20% is the end of the one without; with batch norm it is there at step 200 of 300.
    assert measure.measure_speed(read_folder(two_nets)).value == pytest.approx(2 / 3)


def test_the_path_is_of_the_inputs_of_the_last_sigmoid(two_nets):
    # Unit 1: 1 + 2 = 3 over a spread of 2, unit 2 stays: 0.75 on average; with batch norm 0.125.
    assert measure.measure_stability(read_folder(two_nets)).value == pytest.approx(1 / 6)


def test_trials_are_compared_rate_by_rate(two_nets):
    rates = (0.01, 10.0)
    errors = {(PLAIN, 0.01): 0.4, (PLAIN, 10.0): None, (NORMALIZED, 0.01): 0.3}
    errors[NORMALIZED, 10.0] = 0.1
    for (name, rate), error in errors.items():
        for seed in (0, 1):
            write_run(
                two_nets / "tuning",
                f"{name}-base{rate}",
                seed,
                (error + seed / 100,) if error else (),
                last="end" if error else "nan",
                train_fields={"on_nan": "record"},
            )
    tuning = Tuning(rates, 5, seeds=2)
    results = read(two_nets, tuning=tuning)
    compare = measure.compare_trials
    assert compare((NORMALIZED, 0.01), (PLAIN, 0.01))(results).value == pytest.approx(-10)
    diverged = compare((PLAIN, 10.0), (NORMALIZED, 10.0))(results)
    assert diverged.value == pytest.approx(90 - 10.5) and diverged.seeds == 2
    # The best rate without batch norm is 0.01, with it 10.
    assert compare((NORMALIZED, PLAIN), (PLAIN, PLAIN))(results).value == pytest.approx(-10)
    own = compare((NORMALIZED, NORMALIZED), (NORMALIZED, PLAIN))(results)
    assert own.value == pytest.approx(-20)
    assert compare((NORMALIZED, 1.0), (PLAIN, 1.0))(results).value is None
    (chart,) = page._chart_rates(results)
    assert [line.label for line in chart.lines] == list(measure.LABELS.values())
    # The launch is cut off in a trial.
    log = two_nets / f"tuning/{NORMALIZED}-base0.01/seed1/metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    results = read(two_nets, tuning=tuning)
    for cut in ((NORMALIZED, 0.01), (NORMALIZED, PLAIN), (PLAIN, NORMALIZED)):
        assert compare(cut, (PLAIN, 0.01))(results).value is None
    assert compare((PLAIN, PLAIN), (PLAIN, 0.01))(results).value == 0


def test_epochs_until_the_goal(tmp_path):
    write_study(tmp_path, "relu", "tanh")
    # Logged every 50 steps of 128 of digits' 1,437 images.
    write_run(tmp_path, "relu", errors=(0.1,), train=(0.5, 0.25, 0.1))
    write_run(tmp_path, "tanh", errors=(0.1,), train=(0.9, 0.8, 0.7))
    results = read_folder(tmp_path)
    (relu,), (tanh,) = results.runs["relu"], results.runs["tanh"]
    assert activations.find_goal(relu) == pytest.approx(100 * 128 / 1_437)
    assert activations.find_goal(tanh) == pytest.approx(600 * 128 / 1_437)  # Twice its 300 steps.
    assert activations._compare_speed("tanh")(results).value == pytest.approx(6)


def test_depth_ratios(tmp_path):
    write_study(tmp_path, *initialization.TANH)
    for name, last in zip(initialization.TANH, (0.1, 0.5), strict=True):
        place = write_run(tmp_path, name, errors=(0.5,), train=(0.5,))
        write_layers(
            place, {0: [make_layer(7.0), *(make_layer(s, **SIGMOID) for s in (1.0, last))]}
        )
    results = read_folder(tmp_path)
    standard = initialization.STANDARD
    ratio = initialization._measure_ratio
    assert ratio(standard, "values", from_first=True)(results).value == pytest.approx(0.1)
    assert ratio(standard, "gradients")(results).value == pytest.approx(10)
    assert initialization._compare_ratios(results).value == pytest.approx(5)
