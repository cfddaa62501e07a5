"""A folder that outlives the embedded AWS: whose it is, who uses it, and which file an object's key is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, unquote

from app.errors import StockflowError

_OBJECT = ".object"
_CONTINUES = "%"
"""Ends a piece of a part of a key that is longer than a file's name may be; nothing that is quoted ends so."""
_LONGEST = 200
"""Characters of a piece; a file's name has 255, and what is being written has a longer one."""


class StateInUse(StockflowError):
    """The folder holds something else, is in use, or cannot be written."""

    exit_code = 10


def claim(folder: Path) -> None:
    """Make the folder of a state, or take one that nobody uses; StateInUse says why it cannot be had."""
    with hold(folder):
        pass


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Claim the folder of a state and keep others from it meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / "objects").is_dir():
            raise StateInUse(f"{folder} holds something else than an embedded AWS's state: name a new folder")
        (folder / "objects").mkdir(exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as exc:
        raise StateInUse(f"{folder} cannot be written ({exc.strerror}): name another folder") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StateInUse(f"{folder} is another embedded AWS's at this moment: end that, or name another") from exc
        yield


def object_file(folder: Path, key: str) -> Path:
    """The file of an object. Its last part is marked, so that `a` and `a/b` can both be objects."""
    *parents, name = (_pieces(part) for part in key.split("/"))
    folders = [piece for pieces in parents for piece in pieces] + name[:-1]
    return folder.joinpath(*folders, f"{name[-1]}{_OBJECT}")


def objects(folder: Path) -> Iterator[tuple[str, Path]]:
    """The objects that lie in a folder: their keys and files."""
    for path in sorted(folder.rglob(f"*{_OBJECT}")):
        *folders, name = path.relative_to(folder).parts
        key = ""
        for piece in (*folders, name.removesuffix(_OBJECT)):
            continues = len(piece) > 1 and piece.endswith(_CONTINUES)
            key += piece[:-1] if continues else f"{'' if piece == '%' else piece}/"
        yield unquote(key[:-1]), path


def file_name(name: str) -> str:
    """The name of a file for any name; of a long one its beginning, and what tells it from others."""
    quoted = quote(name, safe="")
    return quoted if len(quoted) <= _LONGEST else f"{quoted[:_LONGEST]}-{sha256(name.encode()).hexdigest()[:16]}"


def write(place: Path, body: bytes) -> None:
    """Put a whole file in its place at once."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}-{threading.get_ident()}")
    fresh.write_bytes(body)
    os.replace(fresh, place)


def _pieces(part: str) -> list[str]:
    """A part of a key as names of files: none of them `.`, `..`, too long, or one that marks an object."""
    quoted = quote(part, safe=" =+@,()").replace(_OBJECT, "%2Eobject") or "%"
    if quoted.strip(".") == "":
        quoted = quoted.replace(".", "%2E")
    *cut, last = (quoted[start : start + _LONGEST] for start in range(0, len(quoted), _LONGEST))
    return [*(f"{piece}{_CONTINUES}" for piece in cut), last]
