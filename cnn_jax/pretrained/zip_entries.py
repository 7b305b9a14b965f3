"""Entries of zip files of weights, which are never compressed."""

import zipfile

from cnn_jax.errors import UserError


def read_entry(archive: zipfile.ZipFile, entry: str, most: int | None = None) -> bytes:
    """Returns the bytes of an entry, whose checksum is checked.

    Args:
      archive: The zip file.
      entry: The name of the entry.
      most: How many bytes it may have.

    Raises:
      UserError: If it is compressed, or larger.
    """
    info = find_stored(archive, entry)
    if most is not None and info.file_size > most:
        raise UserError(f"holds {entry} of {info.file_size:,} bytes; at most {most:,} are read")
    return archive.read(info)


def find_stored(archive: zipfile.ZipFile, entry: str) -> zipfile.ZipInfo:
    """Returns an entry that is not compressed; raises UserError if it is."""
    info = archive.getinfo(entry)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise UserError(f"holds {entry} in compressed form, which such files never do")
    return info
