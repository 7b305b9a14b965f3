"""Small prepared TFDS sets, written without TensorFlow."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

IMAGES = Path(__file__).parents[1] / "testdata" / "images"
# {class: (training files, test file)}. The labels do not follow the order of the files.
CLASSES = {
    "colors": (("cmyk", "grey"), "full_chroma_444"),
    "plain": (("baseline_420", "progressive"), "restart_markers"),
    "sizes": (("exif_rotated", "odd_and_wide"), "exif_rotated"),
}


def encoded(name: str) -> bytes:
    """Returns the content of one of the committed JPEG files."""
    return (IMAGES / f"{name}.jpg").read_bytes()


class Photographs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The committed JPEG files in three classes: six training and three test images.

    The splits in `unlabeled` have the label -1, as sets whose test labels were not published.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # Nothing is downloaded.

    def __init__(
        self, name: str, tested: tuple[str, ...], data_dir: str, unlabeled: tuple[str, ...] = ()
    ) -> None:
        self.name, self._tested, self._unlabeled = name, tested, unlabeled
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in ("train", *self._tested)}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for label, (trained, tested) in CLASSES.items():
            for name in trained if split == "train" else (tested,):
                given = -1 if split in self._unlabeled else label
                yield name, {"image": encoded(name), "label": given}


def prepare(builder: tfds.core.DatasetBuilder, data_dir: Path) -> None:
    """Writes the set that the builder describes, without printing or downloading."""
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_dir=data_dir / "downloads",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
