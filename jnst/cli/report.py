"""What stands beside a picture: OUTPUT.json, the record of the run, and OUTPUT.flags, which makes it again."""

import json
import os
import re
from pathlib import Path

from jnst.cli import flags
from jnst.files import write_atomically
from jnst.version import __version__

__all__ = ["embedded", "intermediate", "is_intermediate", "is_ours", "outputs", "write_flags", "write_record"]

# Neither where a picture lies nor where it was computed is part of it.
_NOT_EMBEDDED = ("output", "device", "print_every", "save_every")


def embedded(chosen: dict[str, object], weights: dict[str, str]) -> str:
    """The text that a PNG carries: version, weights and flags, with files by name only; equal runs, equal text."""
    kept = {name: value for name, value in chosen.items() if name not in _NOT_EMBEDDED}
    for name in flags.PATHS & kept.keys():
        kept[name] = flags.join_paths(name, [Path(part).name for part in flags.paths_in(name, kept[name])])
    weights = {"name": Path(weights["name"]).name, "sha256": weights["sha256"]}
    return json.dumps({"jnst": __version__, "weights": weights, "flags": kept}, sort_keys=True)


def write_record(output: str, record: dict[str, object]) -> None:
    """OUTPUT's stem + `.json`: strict JSON (no NaN)."""
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    write_atomically(Path(output).with_suffix(".json"), text.encode())


def write_flags(output: str, chosen: dict[str, object]) -> None:
    """OUTPUT's stem + `.flags`."""
    write_atomically(Path(output).with_suffix(".flags"), flags.flagfile(chosen).encode())


def outputs(output: str, steps: int) -> tuple[Path, ...]:
    """Every kind of file that a run writes, to be tried before it starts; `steps` is 0 where none are saved between."""
    path = Path(output)
    between = (intermediate(output, steps),) if steps else ()
    return path, path.with_suffix(".json"), path.with_suffix(".flags"), *between


def intermediate(output: str, step: int) -> Path:
    """`out/a.png`, 100 -> `out/a-000100.png`."""
    path = Path(output)
    return path.with_name(f"{path.stem}-{step:06d}{path.suffix}")


def is_intermediate(output: str, name: str) -> bool:
    """Whether `name` is one that `intermediate` could give for `output`."""
    path, other = Path(os.path.realpath(output)), Path(os.path.realpath(name))
    pattern = re.escape(path.stem) + r"-\d{6,}" + re.escape(path.suffix)
    return path.parent == other.parent and re.fullmatch(pattern, other.name) is not None


def is_ours(path: Path) -> bool:
    """Whether a `.json` or `.flags` file was written by a run, so that another may replace it."""
    try:
        text = path.read_text("utf-8")
        return text.startswith(flags.MARK) if path.suffix == ".flags" else "trace" in dict(json.loads(text))
    except (OSError, ValueError, TypeError):
        return False
