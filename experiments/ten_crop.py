"""What do ten views of a test image gain over one?

Paper     Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks": Sec.
          4.1 (four corners, the centre, and their mirror images; the softmax averaged) and Table 2.
Question  One crop of the centre against ten, the same net.
Command   python launch.py --experiment=ten_crop
Measured  docs/results holds what came of it, with hardware and commit.
"""

from dataclasses import replace

from cnn_jax.config import Choice, Data, Experiment, Train, change, choose, protocol_name
from cnn_jax.errors import UserError, nearest
from cnn_jax.study import Claim, Row, Study

COST = {
    "laptop": "a narrow AlexNet on scikit-learn's digits drawn large, 2 minutes on 2 CPU cores",
    "paper": "AlexNet for 90 epochs of ImageNet: for an accelerator",
    "smoke": "two steps on fake data, for tests",
}


def _protocols(scale: int) -> tuple[Choice, ...]:
    return choose("single", scales=(scale,)), choose("ten_crop", scales=(scale,))


def _paper() -> Experiment:
    """Sec. 5: the recipe; images are 227x227, which the maps' sizes ask for."""
    return Experiment(
        study="ten_crop",
        name="alexnet",
        data=Data(
            dataset=choose("imagenet2012"),
            batch_size=128,
            subtract_mean="pixel",
            train_resize=(256,),
            eval_resize=256,
            image_size=227,
            pad_and_crop=0,
            flip=True,
            color_pca=True,
        ),
        model=choose("alexnet"),
        optimizer=choose("sgd", momentum=0.9, weight_decay=5e-4),
        schedule=choose("plateau", base=0.01, factor=0.1),
        # 90 epochs of 10,010 iterations.
        train=Train(steps=900_000, log_every=100, eval_every=10_000, save_every=10_000),
        protocols=_protocols(256),
        deviations=("training crops come from anywhere in the image, not from its central 256x256 alone",),
    )


def _laptop(run: Experiment) -> Experiment:
    """A narrow net on small crops of digits drawn large."""
    return replace(
        run,
        data=replace(run.data, dataset=choose("digits"), batch_size=64, eval_batch_size=360, subtract_mean="channel", train_resize=(76,),
                     eval_resize=76, image_size=67, flip=False, color_pca=False),
        model=change(run.model, width=0.125, initializer="he"),
        train=replace(run.train, steps=400, log_every=50, eval_every=50, save_every=200),
        protocols=_protocols(76),
    )  # fmt: skip


def _smoke(run: Experiment) -> Experiment:
    small = _laptop(run)
    return replace(
        small,
        data=replace(small.data, dataset=choose("fake"), batch_size=8, eval_batch_size=40),
        train=replace(small.train, steps=2, log_every=1, eval_every=2, save_every=2),
    )


def _as_it_is(run: Experiment) -> Experiment:
    return run


CHANGES = {"paper": _as_it_is, "laptop": _laptop, "smoke": _smoke}


def study(preset: str) -> Study:
    """One run and its two tests."""
    if preset not in CHANGES:
        raise UserError(f"preset={preset}: ten_crop has no such preset; {nearest(preset, CHANGES)}")
    run = CHANGES[preset](_paper())
    one, ten = map(protocol_name, run.protocols)
    return Study(
        name="ten_crop",
        title="One view of a test image against ten",
        paper="Krizhevsky, Sutskever, Hinton 2012, Sec. 4.1 and Table 2",
        paper_data="imagenet2012",
        preset=preset,
        runs={"alexnet": run},
        rows=(
            Row("alexnet", "AlexNet, 1 crop", "AlexNet", "no figure in Table 2", {}, "Table 2", one),
            Row("alexnet", "AlexNet, 10 crops", "AlexNet", "Table 2", {"top1_error": 40.7, "top5_error": 18.2},
                "Table 2", ten),
        ),
        paper_runs={"alexnet": _paper()},
        claims=(Claim("10 crops against 1", ("alexnet", ten), ("alexnet", one), None),),
    )  # fmt: skip
