"""Files by URL: fetched once into the user's cache folder, whole or not at all, checked if their name has a hash."""

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

from cnn_jax.config import UserError

HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # vgg16-397923af.pth: the SHA-256's first digits
TIMEOUT = 30  # seconds without an answer


def local(path_or_url: str | os.PathLike[str]) -> Path:
    """The path itself, or that of the file that the URL names, in $XDG_CACHE_HOME/cnn_jax or ~/.cache/cnn_jax.

    Raises UserError for a URL that does not answer with the whole file, or one that the hash in its name disowns.
    """
    text = os.fspath(path_or_url)
    if "://" not in text:
        return Path(text).expanduser()
    parsed = urllib.parse.urlsplit(text)
    if parsed.scheme not in ("http", "https") or not parsed.hostname:
        raise UserError(f"{text}: wants a path, or a URL of https:// or http://")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnn_jax"
    # The whole of the URL's path, as many a file is called model.safetensors.
    parts = [
        re.sub(r"[^\w.=-]", "_", part)
        for part in (parsed.path + ("?" if parsed.query else "") + parsed.query).split("/")
    ]
    path = cache.joinpath(parsed.netloc.rpartition("@")[2].replace(":", "_"), *(p for p in parts if p.strip(".")))
    if not path.exists():
        _download(text, path)
    return path


def beside(path_or_url: str | os.PathLike[str], name: str) -> Path | None:
    """The file of this name beside one that `local` gave, if there is any; on Hugging Face it is looked for."""
    text = os.fspath(path_or_url)
    if "://" in text and urllib.parse.urlsplit(text).hostname == "huggingface.co":
        try:
            return local(urllib.parse.urljoin(text, name))
        except UserError:
            return None
    path = local(text).with_name(name)
    return path if path.is_file() else None


def _download(url: str, path: Path) -> None:
    remedy = "download it yourself and give its path"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part.", dir=path.parent) as folder:
            part = Path(folder) / "part"
            with part.open("wb") as file, urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                digest = _copy(answer, file, path.name)
            wanted = HASH.search(urllib.parse.urlsplit(url).path)
            if wanted and not digest.startswith(wanted[1]):
                raise UserError(
                    f"{url}: its SHA-256 begins with {digest[:8]}, not {wanted[1]} as its name says: refused"
                )
            os.replace(part, path)
    except urllib.error.HTTPError as error:
        raise UserError(f"{url}: the server says {error.code} {error.reason}; is the address right?") from error
    except urllib.error.URLError as error:
        raise UserError(f"{url} cannot be reached: {error.reason}; {remedy}") from error
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{url} cannot be fetched: {error}; try again, or {remedy}") from error


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], name: str) -> str:
    """Writes what comes, showing progress; returns its SHA-256 in hexadecimal."""
    size = int(answer.headers.get("Content-Length") or 0)
    digest = hashlib.sha256()
    with tqdm(total=size or None, unit="B", unit_scale=True, desc=name, leave=False) as bar:
        while block := answer.read(1 << 20):
            digest.update(block)
            file.write(block)
            bar.update(len(block))
    if size and file.tell() != size:
        raise OSError(f"{file.tell()} of its {size} bytes came")
    return digest.hexdigest()
