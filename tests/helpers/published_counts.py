"""The papers' parameters and multiply-adds of each model, with the source of each figure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Count(NamedTuple):
    """The parameters of a model with these options, for the images and classes of its paper."""

    net: str
    parameters: int
    options: Mapping[str, Any] = MappingProxyType({})


HEADLESS = {"aux_heads": False}
PARAMETERS = [
    # LeCun et al. 1998, Sec. II-B: "60,000 trainable free parameters".
    Count("lenet5", 60_000),
    # LeCun et al. 1990: "2578 independent parameters".
    Count("lenet1", 2_578),
    # Krizhevsky et al. 2012, Fig. 2, computed; the paper says 60 million.
    Count("alexnet", 60_965_224),
    # The same in one tower, computed.
    Count("alexnet_one_tower", 62_378_344),
    # torchvision's alexnet weights ("num_params").
    Count("alexnet_owt", 61_100_840),
    # Zeiler and Fergus 2013, Fig. 3, computed.
    Count("zfnet", 62_357_608),
    # Simonyan and Zisserman 2014, Table 1, computed; their Table 2 prints 133, 133, 134, 138 and
    # 144 million.
    Count("vgg_a", 132_863_336),
    Count("vgg_a_lrn", 132_863_336),
    Count("vgg_b", 133_047_848),
    Count("vgg_c", 133_638_952),
    Count("vgg_d", 138_357_544),
    Count("vgg_e", 143_667_240),
    # torchvision's vgg11_bn, vgg16_bn and vgg19_bn weights, whose convolutions keep their biases.
    Count("vgg_a", 132_868_840, {"norm": "bn"}),
    Count("vgg_d", 138_365_992, {"norm": "bn"}),
    Count("vgg_e", 143_678_248, {"norm": "bn"}),
    # Szegedy et al. 2014, Table 1, computed.
    Count("googlenet", 6_998_552, HEADLESS),
    Count("googlenet", 13_378_280),
    # torchvision's googlenet weights ("num_params"), and with its heads.
    Count("googlenet_bn", 6_624_904, HEADLESS),
    Count("googlenet_bn", 13_004_888),
    # torchvision's inception_v3 weights ("num_params") are those with the head; Keras's are those
    # without.
    Count("inception_v3", 23_834_568, HEADLESS),
    Count("inception_v3", 27_161_264),
    # Inception v2 becomes v3 with both options of the ablation (Szegedy et al. 2015, Table 3).
    Count("inception_v2", 27_161_264, {"factorized_7x7": True, "aux_norm": True}),
    # He et al. 2015, Sec. 4.2, with option A's shortcuts, computed; Table 6 prints 0.27, 0.46,
    # 0.66, 0.85, 1.7 and 19.4 million. Shortcuts of option A have no parameters, so plain models
    # have the same number.
    *(
        Count(f"{kind}{depth}", count)
        for depth, count in (
            (20, 269_722),
            (32, 464_154),
            (44, 658_586),
            (56, 853_018),
            (110, 1_727_962),
        )
        for kind in ("resnet", "plain")
    ),
    Count("resnet1202", 19_421_274),
    # He et al. 2015, Table 1, computed for each shortcut option; those of option B, the default,
    # are also torchvision's.
    Count("resnet18", 11_515_688, {"shortcut": "A"}),
    Count("resnet34", 21_623_848, {"shortcut": "A"}),
    Count("resnet50", 22_780_456, {"shortcut": "A"}),
    Count("resnet101", 41_772_584, {"shortcut": "A"}),
    Count("resnet152", 57_416_232, {"shortcut": "A"}),
    Count("plain18", 11_515_688),
    Count("plain34", 21_623_848),
    Count("resnet18", 11_689_512),
    Count("resnet34", 21_797_672),
    Count("resnet50", 25_557_032),
    Count("resnet101", 44_549_160),
    Count("resnet152", 60_192_808),
    Count("resnet18", 12_043_816, {"shortcut": "C"}),
    Count("resnet34", 22_716_840, {"shortcut": "C"}),
    Count("resnet50", 40_128_552, {"shortcut": "C"}),
    Count("resnet101", 76_981_288, {"shortcut": "C"}),
    Count("resnet152", 107_335_720, {"shortcut": "C"}),
]

# {model: (printed figure, relative tolerance)}
MULTIPLY_ADDS = {
    # Simonyan and Zisserman's model E: He et al. 2015, Sec. 3.3, print 19.6 billion for VGG-19.
    "vgg_e": (19.6e9, 0.003),
    # He et al. 2015, Table 1. Their 3.8 for 50 layers sums rounded parts.
    "resnet18": (1.8e9, 0.03),
    "resnet34": (3.6e9, 0.03),
    "resnet50": (3.8e9, 0.03),
    "resnet101": (7.6e9, 0.03),
    "resnet152": (11.3e9, 0.03),
    # torchvision's weights: 1.498 and 5.713 GFLOPS, by which it means multiply-adds.
    "googlenet_bn": (1.498e9, 0.001),
    "inception_v3": (5.713e9, 0.001),
}


def label(count: Count) -> str:
    """Returns the name of a test of this count."""
    return "-".join([count.net, *(f"{name}={value}" for name, value in count.options.items())])


def count_without_heads() -> dict[str, int]:
    """Returns {model: parameters} for default options, without auxiliary heads."""
    with_heads = {count.net for count in PARAMETERS if count.options == HEADLESS}
    return {
        count.net: count.parameters
        for count in PARAMETERS
        if count.options == (HEADLESS if count.net in with_heads else {})
    }
