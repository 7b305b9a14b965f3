"""Does training at many scales help, and testing at many?

Paper     Simonyan, Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image
          Recognition" (arXiv:1409.1556): Sec. 3.1 (training), 3.2 (testing), Tables 3, 4 and 5.
Question  Models A to E, trained with the image's shorter side S fixed at 256, at 384, or drawn from
          [256, 512], are evaluated densely at one scale Q (Table 3) and at three (Table 4), and by
          50 crops a scale (Table 5).
Commands  python launch.py --experiment=vgg_scale_jitter                     (laptop: digits)
          python launch.py --experiment=vgg_scale_jitter --preset=caltech    (Caltech-101)
          python launch.py --experiment=vgg_scale_jitter --preset=paper      (ImageNet)
Results   docs/results/vgg_scale_jitter_digits and
          vgg_scale_jitter_caltech101, with hardware and commit.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cnn_jax import file_names
from cnn_jax.config import Choice, Data, Experiment, Train, change, choose
from cnn_jax.report.claims import BELOW_ZERO, Claim, Score, subtract
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run, shorten_run

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = {
    "laptop": "12 narrow models on scikit-learn's digits drawn large, 10 minutes on 2 CPU cores",
    "caltech": "9 narrow models on Caltech-101, half an hour on 2 CPU cores",
    "paper": "12 models of 370k steps on ImageNet: for a pod",
    "smoke": "12 models of two steps on fake data, for tests",
}

# Errors in %, top-1 and top-5. The columns are S: 256 | 384 | [256, 512].
TABLE_3 = {
    "a": {"256": (29.6, 10.4)},
    "a-lrn": {"256": (29.7, 10.5)},
    "b": {"256": (28.7, 9.9)},
    "c": {"256": (28.1, 9.4), "384": (28.1, 9.3), "jitter": (27.3, 8.8)},
    "d": {"256": (27.0, 8.8), "384": (26.8, 8.7), "jitter": (25.6, 8.1)},
    "e": {"256": (27.3, 9.0), "384": (26.9, 8.7), "jitter": (25.5, 8.0)},
}
TABLE_4 = {
    "b": {"256": (28.2, 9.6)},
    "c": {"256": (27.7, 9.2), "384": (27.8, 9.2), "jitter": (26.3, 8.2)},
    "d": {"256": (26.6, 8.6), "384": (26.5, 8.6), "jitter": (24.8, 7.5)},
    "e": {"256": (26.9, 8.7), "384": (26.7, 8.6), "jitter": (24.8, 7.5)},
}
TABLE_5 = {
    "d": {"dense": (24.8, 7.5), "grid": (24.6, 7.5), "dense+grid": (24.4, 7.2)},
    "e": {"dense": (24.8, 7.5), "grid": (24.6, 7.4), "dense+grid": (24.4, 7.1)},
}
WORDS = {"dense": "dense", "grid": "multi-crop", "dense+grid": "multi-crop & dense"}
# What a deeper model takes from a trained A (Sec. 3.1): its first four convolutions and its three
# dense layers.
FROM_A = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")
EVERY_MODEL = tuple(TABLE_3)


class Scales(NamedTuple):
    """The sides of a preset in pixels: the crop, and the paper's 224 to 512 in proportion."""

    crop: int
    sides: dict[int, int]

    def find_training_sides(self, name: str) -> tuple[int, ...]:
        """Returns S by its name in the runs: 256 | 384 | jitter."""
        return (self.sides[256], self.sides[512]) if name == "jitter" else (self.sides[int(name)],)

    def find_test_side(self, name: str) -> int:
        """Returns Q of Table 3: S, or the middle of its range (Sec. 4.1)."""
        return self.sides[384 if name == "jitter" else int(name)]

    def find_test_sides(self, name: str) -> tuple[int, ...]:
        """Returns the three Q of Table 4 (Sec. 4.2)."""
        near = {"256": (224, 256, 288), "384": (352, 384, 416), "jitter": (256, 384, 512)}
        return tuple(self.sides[q] for q in near[name])


PAPER_SIDES = (224, 256, 288, 352, 384, 416, 512)
PAPER = Scales(224, {q: q for q in PAPER_SIDES})
# Two of the models' strides of 32: with a crop of 32, dense evaluation would have a single place on
# images of up to 63 pixels.
SMALL = Scales(64, dict(zip(PAPER_SIDES, (64, 74, 82, 100, 110, 118, 146), strict=True)))


def _paper(letter: str, name: str, scales: Scales = PAPER) -> Experiment:
    """Returns the recipe of every model (Sec. 3.1)."""
    start, rate = "", 0.01
    layers: tuple[str, ...] = ()
    if name != "256":  # 384 starts from 256, and jitter from 384.
        start, rate = f"{letter}-{'256' if name == '384' else '384'}", 0.001
    elif letter not in ("a", "a-lrn"):
        start, layers = "a-256", FROM_A
    return Experiment(
        study="vgg_scale_jitter",
        name=f"{letter}-{name}",
        data=Data(
            dataset=choose("imagenet2012"),
            batch_size=256,
            subtract_mean="channel",
            train_resize=scales.find_training_sides(name),
            eval_resize=scales.find_test_side(name),
            image_size=scales.crop,
            pad_and_crop=0,
            flip=True,
            color_pca=True,
        ),
        model=choose(f"vgg_{letter.replace('-', '_')}", initializer="paper", dropout=0.5),
        optimizer=choose("sgd", momentum=0.9, weight_decay=5e-4),
        schedule=choose("plateau", base=rate, factor=0.1, patience=5, max_cuts=3),
        # 74 epochs of 5,005 steps; an evaluation an epoch decides when the rate is cut.
        train=Train(
            steps=370_000,
            log_every=100,
            eval_every=5_000,
            save_every=5_000,
            start_from=start,
            start_layers=layers,
        ),
        protocols=_list_protocols(letter, name, scales),
        deviations=(RATE,) if name == "jitter" else (),
    )


RATE = "the rate of fine-tuning with jitter is that of 384, 0.001: the paper gives none"


def _list_protocols(letter: str, name: str, scales: Scales) -> tuple[Choice, ...]:
    """Returns what the tables need of a run, and dense evaluation at each Q for the figure."""
    three = scales.find_test_sides(name)
    found = [choose("dense", scales=(q,)) for q in scales.sides.values()]
    found += [choose("dense", scales=three)] if letter in TABLE_4 else []
    if letter in TABLE_5 and name == "jitter":
        found += [choose(views, scales=three) for views in ("grid", "dense+grid")]
    return tuple(found)


def _is_fine_tuned(run: Experiment) -> bool:
    return bool(run.train.start_from) and not run.train.start_layers


def _laptop(run: Experiment) -> Experiment:
    """Returns a narrow model on digits drawn large, with fewer steps."""
    fine = _is_fine_tuned(run)
    return replace(
        run,
        data=replace(
            run.data,
            dataset=choose("digits"),
            batch_size=64,
            eval_batch_size=360,
            flip=False,
            color_pca=False,
        ),
        model=change(run.model, width=0.125, initializer="he"),
        schedule=change(run.schedule, base=0.005 if fine else 0.01),
        train=replace(
            run.train, steps=150 if fine else 300, log_every=50, eval_every=50, save_every=150
        ),
    )


def _caltech(run: Experiment) -> Experiment:
    """Returns a narrow model with batch norm on Caltech-101.

    Without batch norm so few steps on 30 images a class teach nothing.
    """
    fine = _is_fine_tuned(run)
    return replace(
        run,
        data=replace(run.data, dataset=choose("caltech101"), batch_size=64, eval_batch_size=100),
        model=change(run.model, width=0.125, initializer="he", norm="bn", dropout=0.0),
        schedule=change(run.schedule, base=0.02 if fine else 0.05),
        train=replace(
            run.train, steps=300 if fine else 600, log_every=50, eval_every=150, save_every=300
        ),
    )


def _smoke(run: Experiment) -> Experiment:
    return replace(shorten_run(run, fake=True), model=change(run.model, width=1 / 32))


PRESETS = {"paper": PAPER, "laptop": SMALL, "caltech": SMALL, "smoke": SMALL}


CHANGES = {"paper": keep_run, "laptop": _laptop, "caltech": _caltech, "smoke": _smoke}


def study(preset: str, presets: Iterable[str] = PRESETS) -> Study:
    """Returns the twelve runs of Tables 3 to 5; for caltech A, B and D, each at all three S.

    Args:
      preset: The size of the study.
      presets: The presets that the study has.
    """
    check_preset("this study", preset, presets)
    caltech = preset == "caltech"
    letters = ("a", "b", "d") if caltech else EVERY_MODEL
    scales, sizes = PRESETS[preset], ("256", "384", "jitter")
    pairs = [(letter, size) for size in sizes for letter in letters]
    wanted = [(letter, size) for letter, size in pairs if caltech or size in TABLE_3[letter]]
    names = {f"{letter}-{size}": (letter, size) for letter, size in wanted}
    sides = ", ".join(map(str, scales.sides.values()))
    proportion = (
        "Sides are in proportion to the crop: the paper's 224, 256, 288, 352, 384, 416 and 512 are"
        f" {sides}."
    )
    return Study(
        name="vgg_scale_jitter",
        title="Scale jitter in training and testing",
        paper="Simonyan, Zisserman 2014 (arXiv:1409.1556), Sec. 4, Tables 3, 4 and 5",
        paper_data="imagenet2012",
        preset=preset,
        runs={name: CHANGES[preset](_paper(*pair, scales)) for name, pair in names.items()},
        rows=(
            *_list_table_3(wanted, scales),
            *_list_table_4(wanted, scales),
            *_list_table_5(wanted, scales),
        ),
        claims=tuple(_make_claims(wanted, scales)),
        report=_report,
        paper_runs={name: _paper(*pair) for name, pair in names.items()},
        notes=() if scales is PAPER else (proportion,),
    )


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    crops = "Training images as the models see them, a row for each scale S."
    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.errors_by_scale(results, results.rows),
        report.image_grid(results, file_names.CROPS, crops, "Training images"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )


def _make_row(
    letter: str,
    size: str,
    words: str,
    table: str,
    protocol: str,
    printed: tuple[float, float] | None,
) -> Row:
    paper = dict(zip(("top1_error", "top5_error"), printed, strict=True)) if printed else {}
    name, group = f"{letter.upper()}, {words}", f"model {letter.upper()}"
    return Row(f"{letter}-{size}", name, group, table, paper, table, protocol)


def _describe_sides(sides: tuple[int, ...]) -> str:
    return str(sides[0]) if len(sides) == 1 else f"[{sides[0]}; {sides[1]}]"


def _list_table_3(wanted: list[tuple[str, str]], scales: Scales) -> list[Row]:
    """Returns the rows of one test scale."""
    rows = []
    for letter, size in sorted(wanted, key=lambda pair: EVERY_MODEL.index(pair[0])):
        words = _describe_sides(scales.find_training_sides(size))
        q = scales.find_test_side(size)
        printed = TABLE_3[letter].get(size)
        rows.append(_make_row(letter, size, f"S {words}, Q {q}", "Table 3", f"dense@{q}", printed))
    return rows


def _list_table_4(wanted: list[tuple[str, str]], scales: Scales) -> list[Row]:
    """Returns the rows of three test scales."""
    rows = []
    for letter, size in sorted(wanted, key=lambda pair: EVERY_MODEL.index(pair[0])):
        if letter in TABLE_4:
            words = _describe_sides(scales.find_training_sides(size))
            three = _join_sides(scales, size)
            words = f"S {words}, Q {three}"
            printed = TABLE_4[letter].get(size)
            rows.append(_make_row(letter, size, words, "Table 4", f"dense@{three}", printed))
    return rows


def _list_table_5(wanted: list[tuple[str, str]], scales: Scales) -> list[Row]:
    """Returns the rows of dense evaluation, 50 crops a scale, and both."""
    three = _join_sides(scales, "jitter")
    return [
        _make_row(letter, "jitter", WORDS[protocol], "Table 5", f"{protocol}@{three}", printed)
        for letter, columns in TABLE_5.items()
        if (letter, "jitter") in wanted
        for protocol, printed in columns.items()
    ]


def _join_sides(scales: Scales, size: str) -> str:
    return ",".join(map(str, scales.find_test_sides(size)))


def claim_lrn(preset: str) -> Claim:
    """Returns the claim about A-LRN (Sec. 4.1)."""
    protocol = f"dense@{PRESETS[preset].find_test_side('256')}"
    printed = round(TABLE_3["a-lrn"]["256"][0] - TABLE_3["a"]["256"][0], 2)
    return Claim(
        "LRN does not help: A-LRN errs at most half a point less than A",
        subtract(Score("a-lrn-256", protocol), Score("a-256", protocol)),
        expected=(-0.5, math.inf),
        paper=printed,
        source="Sec. 4.1, Table 3",
    )


def _make_claims(wanted: list[tuple[str, str]], scales: Scales) -> list[Claim]:
    """Returns the claims about LRN, about jitter in training, and about several test scales."""
    one, three = scales.find_test_side("jitter"), _join_sides(scales, "jitter")
    claims = []
    if ("a-lrn", "256") in wanted:
        preset = next(name for name, sides in PRESETS.items() if sides is scales)
        claims.append(claim_lrn(preset))
    for letter in (letter for letter in EVERY_MODEL if (letter, "jitter") in wanted):
        name, run = letter.upper(), f"{letter}-jitter"
        for size in ("384", "256"):
            if (letter, size) in wanted:
                fixed = Score(f"{letter}-{size}", f"dense@{scales.find_test_side(size)}")
                claims.append(
                    Claim(
                        f"{name}: S jittered errs less than S {scales.sides[int(size)]},"
                        " at one test scale",
                        subtract(Score(run, f"dense@{one}"), fixed),
                        expected=BELOW_ZERO,
                        paper=_subtract_printed(
                            TABLE_3[letter].get("jitter"), TABLE_3[letter].get(size)
                        ),
                        source="Sec. 4.1, Table 3",
                    )
                )
        if letter in TABLE_4:
            claims.append(
                Claim(
                    f"{name}: three test scales err less than one, S jittered",
                    subtract(Score(run, f"dense@{three}"), Score(run, f"dense@{one}")),
                    expected=BELOW_ZERO,
                    paper=_subtract_printed(
                        TABLE_4[letter].get("jitter"), TABLE_3[letter].get("jitter")
                    ),
                    source="Sec. 4.2, Tables 3 and 4",
                )
            )
        if letter in TABLE_5:
            fused, alone = TABLE_5[letter]["dense+grid"], TABLE_5[letter]["dense"]
            claims.append(
                Claim(
                    f"{name}: multi-crop and dense evaluation fused err less than dense alone",
                    subtract(Score(run, f"dense+grid@{three}"), Score(run, f"dense@{three}")),
                    expected=BELOW_ZERO,
                    paper=_subtract_printed(fused, alone),
                    source="Sec. 4.3, Table 5",
                )
            )
    return claims


def _subtract_printed(
    first: tuple[float, float] | None, second: tuple[float, float] | None
) -> float | None:
    """Returns the difference of two printed top-1 errors; None if one is not printed."""
    return None if first is None or second is None else round(first[0] - second[0], 2)
