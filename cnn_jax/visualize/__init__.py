"""Looking into trained models: filters, feature maps, gradients, deconvnets, synthesized images.

All are pure functions over (model, params, stats, images), batched, for every model. Images are as
the model takes them, [B, H, W, C] float32. `launch.py --visualize` puts them on one page.
"""

from cnn_jax.visualize.activations import Filters, TopImages, find_first_filters, find_top_images
from cnn_jax.visualize.cam import GradCam, compute_grad_cam, compute_guided_grad_cam
from cnn_jax.visualize.controls import (
    INDEPENDENT,
    Curves,
    compute_probabilities,
    correlate_ranks,
    measure_curves,
    randomize,
)
from cnn_jax.visualize.deconvnet import deconvolve, find_strongest_channels, keep_strongest
from cnn_jax.visualize.gradients import (
    Attributions,
    Gradients,
    compute_gradients,
    compute_guided_backprop,
    compute_saliency,
    compute_smooth_grad,
    integrate_gradients,
)
from cnn_jax.visualize.invariance import Invariance, measure_invariance, transform
from cnn_jax.visualize.layers import choose_layer, find_spatial_layers, list_layers, shift_layer
from cnn_jax.visualize.occlusion import Occlusion, occlude
from cnn_jax.visualize.receptive_field import ReceptiveFields, find_receptive_fields
from cnn_jax.visualize.relu import RULES, apply_relu_rule, count_relus
from cnn_jax.visualize.scores import SCORES, score_outputs
from cnn_jax.visualize.synthesis import Synthesis, dream, invert, maximize_class

__all__ = [
    "INDEPENDENT",
    "RULES",
    "SCORES",
    "Attributions",
    "Curves",
    "Filters",
    "GradCam",
    "Gradients",
    "Invariance",
    "Occlusion",
    "ReceptiveFields",
    "Synthesis",
    "TopImages",
    "apply_relu_rule",
    "choose_layer",
    "compute_grad_cam",
    "compute_gradients",
    "compute_guided_backprop",
    "compute_guided_grad_cam",
    "compute_probabilities",
    "compute_saliency",
    "compute_smooth_grad",
    "correlate_ranks",
    "count_relus",
    "deconvolve",
    "dream",
    "find_first_filters",
    "find_receptive_fields",
    "find_spatial_layers",
    "find_strongest_channels",
    "find_top_images",
    "integrate_gradients",
    "invert",
    "keep_strongest",
    "list_layers",
    "maximize_class",
    "measure_curves",
    "measure_invariance",
    "occlude",
    "randomize",
    "score_outputs",
    "shift_layer",
    "transform",
]
