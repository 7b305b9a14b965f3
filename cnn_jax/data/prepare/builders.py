"""A TFDS builder that writes MNIST and CIFAR-10 without TensorFlow.

TFDS's own builders open files with tf.io.gfile and encode images with tf.image. This one takes
arrays and passes PNG images to TFDS. It writes array_record files, which can be read without
TensorFlow.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from cnn_jax.optional_packages import lazy_import

if TYPE_CHECKING:
    import cv2
else:
    cv2 = lazy_import("cv2")

# {split: (images [N, H, W, C] uint8, labels [N] uint8)}.
SplitArrays = dict[str, tuple[np.ndarray, np.ndarray]]


class TfdsDescription(NamedTuple):
    """The description of a data set in TFDS.

    Attributes:
      name: Name of the data set. Its folder is data_dir/name/version.
      version: The version of the data set that TFDS names.
      image: Shape (H, W, C) of an image.
      classes: Number of classes.
      class_names: Names of the classes; None: TFDS has none.
      ids: Whether each example has an "id", such as train_00000.
    """

    name: str
    version: str
    image: tuple[int, int, int]
    classes: int
    class_names: tuple[str, ...] | None
    ids: bool


# mypy cannot follow TFDS's lazy imports to the base class that accepts the argument.
class ImageBuilder(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Writes arrays to data_dir/name/version.

    It is not registered, because TFDS has builders of the same names.
    """

    # Nothing is downloaded. Without this line TFDS would import importlib_resources.
    url_infos = None

    def __init__(self, described: TfdsDescription, arrays: SplitArrays, data_dir: str) -> None:
        self.name, self.VERSION = described.name, tfds.core.Version(described.version)
        self._described, self._arrays = described, arrays
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        names, classes = self._described.class_names, self._described.classes
        features = {
            "image": tfds.features.Image(shape=self._described.image),
            "label": tfds.features.ClassLabel(names=names)
            if names
            else tfds.features.ClassLabel(num_classes=classes),
        }
        if self._described.ids:
            features["id"] = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {
            split: self._generate_examples(split, *arrays) for split, arrays in self._arrays.items()
        }

    def _generate_examples(
        self, split: str, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        # TFDS orders examples by a hash of their key. As in TFDS's builders, the key is the number
        # of the example in the official file, so that the order on disk is the same.
        examples = tqdm.tqdm(zip(images, labels, strict=True), split, len(labels), unit=" images")
        for i, (image, label) in enumerate(examples):
            # OpenCV expects BGR.
            _, png = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
            example = {"image": png.tobytes(), "label": int(label)}
            yield i, example | ({"id": f"{split}_{i:05d}"} if self._described.ids else {})
