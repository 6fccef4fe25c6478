"""Files that come with jnst (presets, weights, pictures): found by name from any folder, in a checkout or installed."""

from pathlib import Path

__all__ = ["find", "is_file", "names"]

_PACKAGE = Path(__file__).resolve().parent
# In a wheel the folders lie inside the package; in a checkout they stand beside it.
_ROOTS = (_PACKAGE / "_bundled" if (_PACKAGE / "_bundled").is_dir() else _PACKAGE.parent,)


def find(name: str, folder: str, suffixes: tuple[str, ...] = ("",)) -> Path | None:
    """The file that `name` means: one on disk, else the bundled one, else None.

    `quickstart`, `quickstart.flags` and `presets/quickstart.flags` all name the same preset, wherever the command runs.
    A bundled name never leaves its folder: `presets/../x` is not one.
    """
    if is_file(name):
        return Path(name)
    bare = name.removeprefix(folder + "/")
    if not bare or "/" in bare or "\\" in bare:
        return None
    for root in _ROOTS:
        for suffix in suffixes:
            path = root / folder / (bare + suffix)
            if is_file(path):
                return path
    return None


def is_file(name: str | Path) -> bool:
    """Whether there is such a file; a name that no file can have (too long for the system) is none."""
    try:
        return Path(name).is_file()
    except OSError:
        return False


def names(folder: str, suffix: str) -> list[str]:
    """The bundled names with this suffix, for messages: `names("presets", ".flags")`."""
    return sorted({path.stem for root in _ROOTS for path in (root / folder).glob("*" + suffix)})
