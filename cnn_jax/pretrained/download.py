"""Files by URL: downloaded once into the user's cache folder, whole or not at all.

A file whose name holds a hash is checked against it.
"""

import hashlib
import http.client
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

from tqdm import tqdm

from cnn_jax.errors import UserError
from cnn_jax.files import expand_path, find_cache_folder

HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # vgg16-397923af.pth: the SHA-256's first digits.
HUB = "huggingface.co"  # Where timm publishes.
TIMEOUT_SECONDS = 30  # Without an answer.


class NotFoundError(UserError):
    """The server has no such file."""


def fetch(path_or_url: str | os.PathLike[str]) -> Path:
    """Returns the path itself, or where the file of a URL lies after its download.

    Downloads are kept in $XDG_CACHE_HOME/cnn_jax or ~/.cache/cnn_jax.

    Raises:
      UserError: If the URL does not answer with the whole file, or its name has another's hash.
    """
    text = os.fspath(path_or_url)
    if "://" not in text:
        return expand_path("weights", text)
    url = _split(text)
    cache = find_cache_folder()
    if cache is None:
        raise UserError(f"{text}: no home folder to keep it in: set XDG_CACHE_HOME to a folder")
    # With all of the URL's path, because many files are called model.safetensors.
    parts = [url.netloc.rpartition("@")[2], *f"{url.path}?{url.query}".removesuffix("?").split("/")]
    path = cache.joinpath(*(re.sub(r"[^\w.=-]", "_", part) for part in parts if part.strip(".")))
    if not path.exists():
        _download(text, path)
    return path


def fetch_sibling(path_or_url: str | os.PathLike[str], name: str) -> Path | None:
    """Returns the file of this name beside another, if there is one.

    Args:
      path_or_url: The other file; of URLs, only on Hugging Face is there a file beside it.
      name: The file's name.
    """
    text = os.fspath(path_or_url)
    if "://" in text and _split(text).hostname == HUB:
        try:
            return fetch(urllib.parse.urljoin(text, name))
        except NotFoundError:
            return None
    path = fetch(text).with_name(name)
    return path if path.is_file() else None


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        split = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise UserError(f"{url}: {error}") from error
    if split.scheme not in ("http", "https") or not split.hostname:
        raise UserError(f"{url}: must be a path, or a URL of https:// or http://")
    return split


def _download(url: str, path: Path) -> None:
    remedy = "download it yourself and give its path"
    request = urllib.request.Request(url, headers={"User-Agent": "cnn_jax"})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part.", dir=path.parent) as folder:
            part = Path(folder) / "part"
            with (
                part.open("wb") as file,
                urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer,
            ):
                digest = _copy(answer, file, path.name)
            named = HASH.search(_split(url).path)
            if named and not digest.startswith(named[1]):
                raise UserError(
                    f"{url}: its SHA-256 begins with {digest[:8]}, not {named[1]} as its name says:"
                    " refused"
                )
            os.replace(part, path)
    except UserError:
        raise
    except urllib.error.HTTPError as error:
        kind = NotFoundError if error.code == 404 else UserError
        words = f"the server says {error.code} {error.reason}; is the address right?"
        raise kind(f"{url}: {words}") from error
    except urllib.error.URLError as error:
        raise UserError(f"{url} cannot be reached: {error.reason}; {remedy}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"{url} cannot be fetched: {error}; try again, or {remedy}") from error


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], name: str) -> str:
    """Writes the received bytes, showing progress; returns their SHA-256 in hexadecimal."""
    size = int(answer.headers.get("Content-Length") or 0)
    digest = hashlib.sha256()
    with tqdm(total=size or None, unit="B", unit_scale=True, desc=name, leave=False) as bar:
        while block := answer.read(1 << 20):
            digest.update(block)
            file.write(block)
            bar.update(len(block))
    if size and file.tell() != size:
        raise OSError(f"{file.tell()} of its {size} bytes arrived")
    return digest.hexdigest()
