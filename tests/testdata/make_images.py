"""Make the ten JPEG files of tests/testdata/images: python tests/testdata/make_images.py [FOLDER]

Each file has one oddity that a decoder can get wrong. The pictures are synthetic: smooth noise of
several scales, as clouds and skin have, and discs with sharp edges, as things before a background
have. They depend on nothing but the seeds below. The committed files were written by Pillow 13.0
with libjpeg-turbo 3.2; another version may encode the same pictures into other bytes, so the tests
read the committed files and not what this script would write.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).with_name("images")
ORIENTATION = 0x0112  # the tag of EXIF that says how an image is to be turned


def noise(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Return smooth noise [height, width] of about -1 to 1 whose features are about `cell` wide."""
    coarse = rng.uniform(-1, 1, (height // cell + 3, width // cell + 3)).astype(np.float32)
    size = (coarse.shape[1] * cell, coarse.shape[0] * cell)
    fine = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(fine)[cell : cell + height, cell : cell + width]


def photograph(seed: int, height: int, width: int) -> Image.Image:
    """Return an RGB picture of smooth noise and of twelve discs of their own colors."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 120, np.float32)
    for cell, strength in ((64, 60), (24, 20), (8, 8)):
        picture += strength * noise(rng, height, width, cell)[..., None]
        picture += strength / 3 * np.dstack([noise(rng, height, width, cell) for _ in range(3)])
    y, x = np.mgrid[:height, :width]
    for _ in range(12):
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        radius = rng.uniform(0.06, 0.2) * min(height, width)
        cover = np.clip(radius - np.hypot(y - row, x - column) + 0.5, 0, 1)[..., None]
        disc = rng.uniform(20, 235, 3) + 15 * noise(rng, height, width, 16)[..., None]
        picture = (1 - cover) * picture + cover * disc
    return Image.fromarray(np.uint8(np.clip(np.round(picture), 0, 255)))


def jpeg(
    image: Image.Image, quality: int = 80, subsampling: str = "4:2:0", **options: object
) -> bytes:
    """Return the image as a JPEG file."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=subsampling, **options)
    return stream.getvalue()


def files() -> dict[str, bytes]:
    """Return the content of each file by its name."""
    turned = Image.Exif()
    turned[ORIENTATION] = 6  # The first row of the file is the right edge of what is shown.
    small = jpeg(photograph(9, 150, 200))
    return {
        "baseline_420.jpg": jpeg(photograph(0, 240, 320)),
        "full_chroma_444.jpg": jpeg(photograph(1, 240, 320), subsampling="4:4:4"),
        "progressive.jpg": jpeg(photograph(2, 320, 240), progressive=True),
        "grey.jpg": jpeg(photograph(3, 240, 320).convert("L")),
        "cmyk.jpg": jpeg(photograph(4, 240, 320).convert("CMYK"), quality=60, subsampling="4:4:4"),
        "exif_rotated.jpg": jpeg(photograph(5, 240, 320), exif=turned.tobytes()),
        "restart_markers.jpg": jpeg(photograph(6, 320, 240), restart_marker_rows=1),
        "odd_and_wide.jpg": jpeg(photograph(7, 101, 877)),
        # A phone's moving photograph has a film behind the picture, longer than the picture itself.
        "trailing_bytes.jpg": small + b"\x00film" * (len(small) // 4),
        "no_end_marker.jpg": jpeg(photograph(8, 150, 200))[:-2],
    }


def main() -> None:
    """Write the files, and print their sizes."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (folder / name).write_bytes(content)
        print(f"{len(content):6} bytes  {folder / name}")


if __name__ == "__main__":
    main()
