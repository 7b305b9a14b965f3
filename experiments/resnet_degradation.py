"""Plain nets degrade with depth, residual nets do not.

Paper     He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385):
          Sec. 4.2, Table 6 and Figure 6 (CIFAR-10); Sec. 4.1, Table 2 and Figure 4 (ImageNet).
Question  Does a deeper net of the same kind fit the training set worse? Plain nets: yes, so it is not
          overfitting. The same layers with identity shortcuts: no.
Commands  python launch.py --experiment=resnet_degradation                  (laptop: digits)
          python launch.py --experiment=resnet_degradation --preset=paper   (the paper's recipe: CIFAR-10)
Measured  docs/results holds what came of it, with hardware and commit.
"""

from dataclasses import replace

from cnn_jax.config import Data, Experiment, Train, change, choose, protocol_name
from cnn_jax.errors import UserError, nearest
from cnn_jax.study import Row, Study

CIFAR_COST = {
    "laptop": "8 runs on scikit-learn's digits, minutes on 2 CPU cores",
    "paper": "11 runs of 64k iterations on CIFAR-10 (ResNet-1202 among them): for an accelerator",
    "smoke": "11 runs of two steps on fake data, for tests",
}
IMAGENET_COST = {
    "paper": "4 runs of 600k iterations on ImageNet: for a pod",
}

# Table 6; the paper prints no figures for its plain nets, it draws them (Figure 6, left).
# ResNet-110: the mean of five runs, as ours is a mean; the table's 6.43 is the best of them.
TABLE_6 = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.61, 1202: 7.93}
WARMED = "warm-up until the training error is below 80%, which the paper states for ResNet-110"
PLAIN_DEPTHS, RESIDUAL_DEPTHS = (20, 32, 44, 56, 110), tuple(TABLE_6)


def _cifar_paper(family: str, depth: int) -> Experiment:
    """Sec. 4.2: the recipe of every net of Table 6."""
    return Experiment(
        study="resnet_degradation",
        name=f"{family}-{depth}",
        # 50k images to report; --set data.holdout=5000 gives the 45k/5k split that the paper chose by.
        data=Data(dataset=choose("cifar10"), batch_size=128, subtract_mean="pixel", pad_and_crop=4, flip=True),
        # 128 images over two GPUs, each with batch statistics of its own.
        model=choose(f"{family}{depth}", bn_group=64),
        optimizer=choose("sgd", momentum=0.9, weight_decay=1e-4),
        schedule=choose(
            "step",
            base=0.1,
            boundaries=(32_000, 48_000),
            factor=0.1,
            # ResNet-110 does not start at 0.1: 0.01 until the training error is below 80%, about 400 iterations.
            warmup_base=0.01,
            warmup_until_error=0.8 if depth >= 110 else 1.0,
        ),
        train=Train(steps=64_000, log_every=100, eval_every=1_000, save_every=1_000),
        deviations=(WARMED,) if depth >= 110 and (family, depth) != ("resnet", 110) else (),
    )


def _laptop(paper: Experiment) -> Experiment:
    """The same nets on 8x8 digits: what of the recipe has to be smaller with the images and the patience."""
    return replace(
        paper,
        # A digit is 8 pixels wide, so it is shifted by 1 and not by 4; a mirrored digit is no digit.
        data=replace(paper.data, dataset=choose("digits"), pad_and_crop=1, flip=False, eval_batch_size=360),
        # So few steps do not make up for what the first ones do at 0.1: ResNet-56 ended with 54% test error.
        schedule=change(paper.schedule, base=0.02, boundaries=(120, 180)),
        train=Train(steps=240, log_every=20, eval_every=60, save_every=60),
    )


def _smoke(paper: Experiment) -> Experiment:
    """Two steps of everything, compiled fast."""
    return replace(
        paper,
        data=replace(paper.data, dataset=choose("fake"), batch_size=8, pad_and_crop=1, eval_batch_size=40),
        model=change(paper.model, bn_group=4, scan_min_blocks=2),
        train=Train(steps=2, log_every=1, eval_every=2, save_every=2),
    )


def _as_it_is(paper: Experiment) -> Experiment:
    return paper


def cifar(preset: str) -> Study:
    """Sec. 4.2: plain-20 to plain-110 beside ResNet-20 to ResNet-1202, option A."""
    presets = {"paper": _as_it_is, "laptop": _laptop, "smoke": _smoke}
    if preset not in presets:
        raise UserError(f"preset={preset}: resnet_degradation has no such preset; {nearest(preset, presets)}")
    deepest = 56 if preset == "laptop" else 1202
    depths = [("plain", d) for d in PLAIN_DEPTHS] + [("resnet", d) for d in RESIDUAL_DEPTHS]
    depths = [(family, d) for family, d in depths if d <= deepest]
    runs = {f"{family}-{d}": presets[preset](_cifar_paper(family, d)) for family, d in depths}
    return Study(
        name="resnet_degradation",
        title="Degradation of plain nets, and residual nets without it",
        paper="He, Zhang, Ren, Sun 2015 (arXiv:1512.03385), Sec. 4.2, Table 6 and Figure 6",
        paper_data="cifar10",
        preset=preset,
        runs=runs,
        rows=tuple(_cifar_row(family, d) for family, d in depths),
        paper_runs={f"{family}-{d}": _cifar_paper(family, d) for family, d in depths},
        notes=("The paper's ResNet-110 is the mean of five runs, 6.61 ± 0.16; its best is 6.43.",),
    )


def _cifar_row(family: str, depth: int) -> Row:
    if family == "plain":
        drawn = "Figure 6, left: over 60, no figure printed" if depth == 110 else "Figure 6, left: no figure printed"
        return Row(f"plain-{depth}", f"plain-{depth}", "plain nets", drawn)
    return Row(f"resnet-{depth}", f"ResNet-{depth}", "residual nets", "Table 6", {"top1_error": TABLE_6[depth]})


# Table 2: top-1 error, 10-crop testing, option A.
TABLE_2 = {"plain-18": 27.94, "plain-34": 28.54, "resnet-18": 27.88, "resnet-34": 25.03}


TEN_CROP = choose("ten_crop", scales=(256,))  # Sec. 3.4 does not say at which scale: AlexNet's


def imagenet(preset: str) -> Study:
    """Sec. 4.1: plain-18 and -34 beside ResNet-18 and -34 with option A on ImageNet."""
    if preset != "paper":
        raise UserError(f"preset={preset}: resnet_degradation_imagenet has only preset=paper")
    return Study(
        name="resnet_degradation_imagenet",
        title="Degradation of plain nets on ImageNet, and residual nets without it",
        paper="He, Zhang, Ren, Sun 2015 (arXiv:1512.03385), Sec. 4.1, Table 2 and Figure 4",
        paper_data="imagenet2012",
        preset=preset,
        runs={name: _imagenet_paper(name) for name in TABLE_2},
        rows=tuple(
            Row(
                name,
                name.replace("resnet", "ResNet"),
                "plain nets" if "plain" in name else "residual nets",
                "Table 2, 10 crops",
                {"top1_error": error},
                "Table 2",
                protocol_name(TEN_CROP),
            )
            for name, error in TABLE_2.items()
        ),  # fmt: skip
    )


def _imagenet_paper(name: str) -> Experiment:
    """Sec. 3.4: the recipe of the ImageNet nets."""
    return Experiment(
        study="resnet_degradation_imagenet",
        name=name,
        data=Data(
            dataset=choose("imagenet2012"),
            batch_size=256,
            subtract_mean="pixel",
            pad_and_crop=0,
            train_resize=(256, 480),
            image_size=224,
            flip=True,
            color_pca=True,
        ),
        # Option A, as Table 2 says. How many images shared statistics is not known here: the whole batch.
        model=choose(name.replace("-", ""), shortcut=None if "plain" in name else "A"),
        optimizer=choose("sgd", momentum=0.9, weight_decay=1e-4),
        schedule=choose("plateau", base=0.1, factor=0.1),
        train=Train(steps=600_000, log_every=100, eval_every=5_000, save_every=5_000),
        protocols=(TEN_CROP,),
    )
