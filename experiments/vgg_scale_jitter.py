"""Does training at many scales help, and testing at many?

Paper     Simonyan, Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
          (arXiv:1409.1556): Sec. 3.1 (training), 3.2 (testing), Tables 3, 4 and 5.
Question  Nets A to E, trained with the image's shorter side S fixed at 256, at 384, or drawn from [256, 512], are
          tested densely at one scale Q (Table 3) and at three (Table 4), and by 50 crops a scale (Table 5).
Commands  python launch.py --experiment=vgg_scale_jitter                     (laptop: digits, no network)
          python launch.py --experiment=vgg_scale_jitter --preset=caltech    (Caltech-101, narrow nets)
          python launch.py --experiment=vgg_scale_jitter --preset=paper      (ImageNet)
Measured  docs/results holds what came of it, with hardware and commit.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from cnn_jax.config import Choice, Data, Experiment, Train, change, choose
from cnn_jax.errors import UserError, nearest
from cnn_jax.study import Claim, Row, Study

COST = {
    "laptop": "12 narrow nets on scikit-learn's digits drawn large, 10 minutes on 2 CPU cores",
    "caltech": "9 narrow nets on Caltech-101, half an hour on 2 CPU cores",
    "paper": "12 nets of 370k iterations on ImageNet: for a pod",
    "smoke": "12 nets of two steps on fake data, for tests",
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
# What a deeper net takes from a trained A (Sec. 3.1): its first four convolutions and its three dense layers. By name,
# as the convolutions between them, which A has not, are of other sizes.
FROM_A = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")
EVERY_NET = tuple(TABLE_3)


class Scales(NamedTuple):
    """The sides of a preset, in pixels: the crop, and the paper's 224 ... 512 in proportion to it."""

    crop: int
    sides: dict[int, int]

    def train(self, name: str) -> tuple[int, ...]:
        """S by its name in the runs: 256 | 384 | jitter."""
        return (self.sides[256], self.sides[512]) if name == "jitter" else (self.sides[int(name)],)

    def test(self, name: str) -> int:
        """Q of Table 3: S, or the middle of its range (Sec. 4.1)."""
        return self.sides[384 if name == "jitter" else int(name)]

    def several(self, name: str) -> tuple[int, ...]:
        """The three Q of Table 4 (Sec. 4.2)."""
        near = {"256": (224, 256, 288), "384": (352, 384, 416), "jitter": (256, 384, 512)}
        return tuple(self.sides[q] for q in near[name])


PAPER_SIDES = (224, 256, 288, 352, 384, 416, 512)
PAPER = Scales(224, {q: q for q in PAPER_SIDES})
# Two of the nets' strides of 32: of a crop of 32, dense views would have one place only on images of up to 63.
SMALL = Scales(64, dict(zip(PAPER_SIDES, (64, 74, 82, 100, 110, 118, 146), strict=True)))


def _paper(net: str, name: str, scales: Scales = PAPER) -> Experiment:
    """Sec. 3.1: the recipe of every net."""
    start, layers, rate = "", (), 0.01
    if name != "256":  # 384 starts from 256, and jitter from 384
        start, rate = f"{net}-{'256' if name == '384' else '384'}", 0.001
    elif net not in ("a", "a-lrn"):
        start, layers = "a-256", FROM_A
    return Experiment(
        study="vgg_scale_jitter",
        name=f"{net}-{name}",
        data=Data(
            dataset=choose("imagenet2012"),
            batch_size=256,
            subtract_mean="channel",
            train_resize=scales.train(name),
            eval_resize=scales.test(name),
            image_size=scales.crop,
            pad_and_crop=0,
            flip=True,
            color_pca=True,
        ),
        model=choose(f"vgg_{net.replace('-', '_')}", initializer="paper", dropout=0.5),
        optimizer=choose("sgd", momentum=0.9, weight_decay=5e-4), schedule=choose("plateau", base=rate, factor=0.1, patience=5),
        # 74 epochs of 5,005 iterations; an evaluation an epoch decides when the rate is cut.
        train=Train(steps=370_000, log_every=100, eval_every=5_000, save_every=5_000, start_from=start,
                    start_layers=layers),
        protocols=_protocols(net, name, scales),
        deviations=(RATE,) if name == "jitter" else (),
    )  # fmt: skip


RATE = "the rate of fine-tuning with jitter is that of 384, 0.001: the paper gives none"


def _protocols(net: str, name: str, scales: Scales) -> tuple[Choice, ...]:
    """What the tables ask of a run; and dense at each Q, for the figure."""
    three = scales.several(name)
    found = [choose("dense", scales=(q,)) for q in scales.sides.values()]
    found += [choose("dense", scales=three)] if net in TABLE_4 else []
    if net in TABLE_5 and name == "jitter":
        found += [choose(views, scales=three) for views in ("grid", "dense+grid")]
    return tuple(found)


def _is_fine_tuned(run: Experiment) -> bool:
    return run.schedule.args["base"] < 0.01


def _laptop(run: Experiment) -> Experiment:
    """Narrow nets on digits drawn large: what of the recipe has to be smaller with the images and the patience."""
    fine = _is_fine_tuned(run)
    return replace(
        run,
        data=replace(
            run.data, dataset=choose("digits"), batch_size=64, eval_batch_size=360, flip=False, color_pca=False
        ),
        model=change(run.model, width=0.125, initializer="he"),
        schedule=change(run.schedule, base=0.005 if fine else 0.01),
        train=replace(run.train, steps=150 if fine else 300, log_every=50, eval_every=50, save_every=150),
    )


def _caltech(run: Experiment) -> Experiment:
    """Narrow nets with batch norm on Caltech-101: so few steps on 30 images a class teach others nothing."""
    fine = _is_fine_tuned(run)
    return replace(
        run,
        data=replace(run.data, dataset=choose("caltech101"), batch_size=64, eval_batch_size=100),
        model=change(run.model, width=0.125, initializer="he", norm="bn", dropout=0.0),
        schedule=change(run.schedule, base=0.02 if fine else 0.05),
        train=replace(run.train, steps=300 if fine else 600, log_every=50, eval_every=150, save_every=300),
    )


def _smoke(run: Experiment) -> Experiment:
    """Two steps of everything."""
    return replace(
        run,
        data=replace(run.data, dataset=choose("fake"), batch_size=8, eval_batch_size=40),
        model=change(run.model, width=1 / 32),
        train=replace(run.train, steps=2, log_every=1, eval_every=2, save_every=2),
    )


PRESETS = {"paper": PAPER, "laptop": SMALL, "caltech": SMALL, "smoke": SMALL}


def _as_it_is(run: Experiment) -> Experiment:
    return run


CHANGES = {"paper": _as_it_is, "laptop": _laptop, "caltech": _caltech, "smoke": _smoke}


def study(preset: str, presets: Iterable[str] = PRESETS) -> Study:
    """The twelve runs of Tables 3 to 5; caltech: A, B and D, each at all three S. presets: those there are."""
    if preset not in presets:
        raise UserError(f"preset={preset}: this study has no such preset; {nearest(preset, presets)}")
    nets = ("a", "b", "d") if preset == "caltech" else EVERY_NET
    scales, sizes = PRESETS[preset], ("256", "384", "jitter")
    wanted = [(net, name) for name in sizes for net in nets if preset == "caltech" or name in TABLE_3[net]]
    runs = {f"{net}-{name}": CHANGES[preset](_paper(net, name, scales)) for net, name in wanted}
    return Study(
        name="vgg_scale_jitter",
        title="Scale jitter in training and testing",
        paper="Simonyan, Zisserman 2014 (arXiv:1409.1556), Sec. 4, Tables 3, 4 and 5",
        paper_data="imagenet2012",
        preset=preset,
        runs=runs,
        rows=(*_table_3(wanted, scales), *_table_4(wanted, scales), *_table_5(wanted, scales)),
        claims=tuple(_claims(wanted, scales)),
        paper_runs={f"{net}-{name}": _paper(net, name) for net, name in wanted},
        notes=() if scales is PAPER else (
            "Sides are in proportion to the crop: the paper's 224, 256, 288, 352, 384, 416 and 512 are "
            f"{', '.join(map(str, scales.sides.values()))}.",
        ),
    )  # fmt: skip


def _row(net: str, name: str, words: str, table: str, test: str, printed: tuple[float, float] | None) -> Row:
    top1, top5 = printed or (None, None)
    paper = {"top1_error": top1, "top5_error": top5} if printed else {}
    return Row(f"{net}-{name}", f"{net.upper()}, {words}", f"net {net.upper()}", table, paper, table, test)


def _spelt(sides: tuple[int, ...]) -> str:
    return str(sides[0]) if len(sides) == 1 else f"[{sides[0]}; {sides[1]}]"


def _table_3(wanted: list[tuple[str, str]], scales: Scales) -> list[Row]:
    """One scale."""
    rows = []
    for net, name in sorted(wanted, key=lambda run: EVERY_NET.index(run[0])):
        words, q = _spelt(scales.train(name)), scales.test(name)
        rows.append(_row(net, name, f"S {words}, Q {q}", "Table 3", f"dense@{q}", TABLE_3[net].get(name)))
    return rows


def _table_4(wanted: list[tuple[str, str]], scales: Scales) -> list[Row]:
    """Three scales."""
    rows = []
    for net, name in sorted(wanted, key=lambda run: EVERY_NET.index(run[0])):
        if net in TABLE_4:
            words, three = _spelt(scales.train(name)), ",".join(map(str, scales.several(name)))
            printed = TABLE_4[net].get(name)
            rows.append(_row(net, name, f"S {words}, Q {three}", "Table 4", f"dense@{three}", printed))
    return rows


def _table_5(wanted: list[tuple[str, str]], scales: Scales) -> list[Row]:
    """Dense against 50 crops a scale, and both."""
    three = ",".join(map(str, scales.several("jitter")))
    return [
        _row(net, "jitter", WORDS[views], "Table 5", f"{views}@{three}", printed)
        for net, columns in TABLE_5.items()
        if (net, "jitter") in wanted
        for views, printed in columns.items()
    ]


def _claims(wanted: list[tuple[str, str]], scales: Scales) -> list[Claim]:
    """Sec. 4.1 and 4.2: jitter in training beats a fixed scale, several test scales beat one; LRN does not help."""
    one, three = scales.test("jitter"), ",".join(map(str, scales.several("jitter")))
    claims, top1 = [], lambda table, net, name: table.get(net, {}).get(name, (None,))[0]
    if ("a-lrn", "256") in wanted:
        test = f"dense@{scales.test('256')}"
        lrn = TABLE_3["a-lrn"]["256"][0] - TABLE_3["a"]["256"][0]
        claims.append(Claim("A-LRN against A: no better", ("a-lrn-256", test), ("a-256", test), lrn))
    for net in (net for net in EVERY_NET if (net, "jitter") in wanted):
        words, run, at_one = net.upper(), f"{net}-jitter", f"dense@{one}"
        for fixed in ("384", "256"):
            if (net, fixed) in wanted:
                test = f"dense@{scales.test(fixed)}"
                printed = _less(top1(TABLE_3, net, "jitter"), top1(TABLE_3, net, fixed))
                words_fixed = f"{words}: S jittered against S {scales.sides[int(fixed)]}, one test scale"
                claims.append(Claim(words_fixed, (run, at_one), (f"{net}-{fixed}", test), printed))
        if net in TABLE_4:
            printed = _less(top1(TABLE_4, net, "jitter"), top1(TABLE_3, net, "jitter"))
            said = f"{words}: three test scales against one, S jittered"
            claims.append(Claim(said, (run, f"dense@{three}"), (run, at_one), printed))
    return claims


def _less(better: float | None, worse: float | None) -> float | None:
    return None if better is None or worse is None else round(better - worse, 2)
