"""Evaluation protocols: their views by hand, their cost, and what is refused."""

from dataclasses import replace

import pytest

from cnn_jax.config import Data, Experiment, choose, name_protocol
from cnn_jax.errors import UserError
from cnn_jax.evaluation import protocols
from cnn_jax.evaluation.protocols import (
    PROTOCOLS,
    check_protocols,
    count_forward_passes,
    make_protocol,
)


def test_views_are_at_the_papers_positions():
    assert protocols.offset_center((40, 47), 32) == [(4, 7)]
    assert protocols.offset_corners((40, 48), 32) == [(0, 0), (0, 16), (8, 0), (8, 16), (4, 8)]
    assert protocols.offset_central_corners((256, 341), 227) == [
        (0, 42),
        (0, 71),
        (29, 42),
        (29, 71),
        (14, 56),
    ]
    central = make_protocol(choose("ten_crop", central_square=True), 227, 256).views
    assert central == (protocols.CENTRAL_CORNERS,)
    places = protocols.offset_grid((40, 48), 32)
    assert (
        len(places) == 25
        and places[:5] == [(0, 0), (0, 4), (0, 8), (0, 12), (0, 16)]
        and places[-1] == (8, 16)
    )
    assert protocols.offset_squares((40, 60)) == [
        (0, 0),
        (0, 10),
        (0, 20),
    ] and protocols.offset_squares((60, 40))[2] == (20, 0)
    assert protocols.offset_square_corners((40, 60), 32)[5:10] == [
        (0, 10),
        (0, 18),
        (8, 10),
        (8, 18),
        (4, 14),
    ]


@pytest.mark.parametrize(
    "choice, said",
    [
        (choose("dence"), "protocols='dence': no such evaluation protocol; nearest: dense"),
        (choose("dense+gird"), "nearest: dense\\+grid"),
        (
            choose("dense", scales=(64, 16)),
            r"protocols.scales=16: dense@64,16 takes crops of 32 pixels.* at least 32",
        ),
        (choose("grid", scale=(64,)), "protocols.scale: grid has no such option; nearest: scales"),
        (choose("grid", scales=("x",)), "protocols.scales=x: must be an integer"),
        (choose("grid", scales=64), "protocols.scales=64: must be comma-separated integers"),
        (choose("grid", scales=(10**9,)), "protocols.scales=1000000000: must be at most 16384"),
    ],
)
def test_a_wrong_protocol_is_refused_before_a_run(choice, said):
    run = Experiment(
        data=Data(image_size=32, train_resize=(36,)), protocols=(choose("single"), choice)
    )
    with pytest.raises(UserError, match=said):
        check_protocols(run)


def test_protocols_of_a_model_without_classes_are_refused_before_a_run():
    run = Experiment(data=Data(dataset=choose("digits")), model=choose("autoencoder"))
    check_protocols(run)
    with pytest.raises(UserError, match=r"protocols=single: .* autoencoder has none"):
        check_protocols(replace(run, protocols=(choose("single"),)))


def test_the_crop_of_a_data_set_of_small_images_is_the_whole_image():
    run = Experiment(
        data=Data(dataset=choose("cifar10")), protocols=(choose("dense", scales=(32,)),)
    )
    check_protocols(run)
    with pytest.raises(UserError, match="at least 32"):
        check_protocols(replace(run, protocols=(choose("dense", scales=(31,)),)))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_has_scales_a_default_and_a_line_of_help(name):
    plain, scaled = choose(name), choose(name, scales=(256, 384))
    assert make_protocol(plain, 224, 256).scales == (256,)
    assert make_protocol(scaled, 224, 256).scales == (256, 384)
    assert name_protocol(scaled) == f"{name}@256,384"
    assert dict(protocols.describe_protocols())[name].endswith(".")


def test_dense_plus_grid_runs_both():
    both = make_protocol(choose("dense+grid"), 224, 256).views
    assert both == (protocols.DENSE, protocols.GRID)


@pytest.mark.parametrize(
    "name, mirrored, plain",
    [("single", 1, 1), ("ten_crop", 10, 5), ("grid", 50, 25), ("googlenet144", 36, 18)],
)
def test_the_cost_of_crops_is_their_number(name, mirrored, plain):
    (views,) = PROTOCOLS[name]().views
    assert count_forward_passes(views, (256, 340), 224, mirror=True) == mirrored
    assert count_forward_passes(views, (256, 340), 224, mirror=False) == plain


def test_the_cost_of_dense_evaluation_is_its_area():
    assert count_forward_passes(protocols.DENSE, (448, 448), 224, mirror=True) == 8


def test_protocols_that_differ_have_different_names():
    choices = [
        choose("dense"),
        choose("dense", scales=(256,)),
        choose("dense", scales=(256, 384)),
        choose("dense", scales=(256,), flip=False),
        choose("dense", scales=(256,), flip=True, stride=2),
    ]
    assert [name_protocol(choice) for choice in choices] == [
        "dense",
        "dense@256",
        "dense@256,384",
        "dense@256,flip=False",
        "dense@256,flip=True,stride=2",
    ]
