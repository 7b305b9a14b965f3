"""Data sets, and the batches that training and evaluation take from them."""

from cnn_jax.data.base import (
    ArrayDataset,
    Arrays,
    Dataset,
    ImageDataset,
    Subset,
)
from cnn_jax.data.datasets import (
    DATASET_INFO,
    DATASETS,
    DatasetInfo,
    describe_dataset,
    find_image_shape,
    is_streamed,
    load_dataset,
    load_test_images,
    open_dataset,
    summarize_dataset,
)
from cnn_jax.data.folders import FolderDataset
from cnn_jax.data.loader import Batch, Loader, make_loader, prefetch_to_device
from cnn_jax.data.tfds_sets import TfdsDataset

__all__ = [
    "DATASETS",
    "DATASET_INFO",
    "ArrayDataset",
    "Arrays",
    "Batch",
    "Dataset",
    "DatasetInfo",
    "FolderDataset",
    "ImageDataset",
    "Loader",
    "Subset",
    "TfdsDataset",
    "describe_dataset",
    "find_image_shape",
    "is_streamed",
    "load_dataset",
    "load_test_images",
    "make_loader",
    "open_dataset",
    "prefetch_to_device",
    "summarize_dataset",
]
