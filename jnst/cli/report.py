"""What stands beside a picture: OUTPUT.json, the record of the run, and OUTPUT.flags, which makes it again."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jnst import bundled, files, images
from jnst.cli import checkpoint, flags
from jnst.config import INITS, StylizeConfig, split_list
from jnst.errors import InputError
from jnst.files import part_prefix, remove_parts, sha256_of, write_atomically
from jnst.version import __version__
from jnst.weights import find, is_word

if TYPE_CHECKING:  # it loads jax: what is wrong with flags is said without
    from jnst.loop import Result

__all__ = [
    "OWN_ENDINGS",
    "check_paths",
    "embedded",
    "flags_path",
    "hashes",
    "hashes_of",
    "intermediate",
    "is_intermediate",
    "is_ours",
    "make_record",
    "outputs",
    "read_record",
    "record_path",
    "sweep",
    "traces",
    "write_flags",
    "write_record",
]

OWN_ENDINGS = (".json", ".flags", ".ckpt")
"""Of the files beside a picture: such a file is replaced only where a run wrote it."""

# Neither where a picture lies nor where it was computed is part of it.
_NOT_EMBEDDED = ("output", "device", "print_every", "save_every", "checkpoint_every")


def embedded(chosen: dict[str, object], weights: dict[str, str]) -> str:
    """The text that a PNG carries: version, weights and flags, with files by name only; equal runs, equal text."""
    kept = {name: value for name, value in chosen.items() if name not in _NOT_EMBEDDED}
    for name in flags.PATHS & kept.keys():
        kept[name] = flags.join_paths(name, [Path(part).name for part in flags.paths_in(name, kept[name])])
    weights = {"name": Path(weights["name"]).name, "sha256": weights["sha256"]}
    return json.dumps({"jnst": __version__, "weights": weights, "flags": kept}, sort_keys=True)


def record_path(output: str) -> Path:
    """OUTPUT's stem + `.json`."""
    return Path(output).with_suffix(".json")


def flags_path(output: str) -> Path:
    """OUTPUT's stem + `.flags`."""
    return Path(output).with_suffix(".flags")


def hashes(config: StylizeConfig, *, digest: Callable[[Path], str] = sha256_of) -> dict[str, str]:
    """SHA-256 of the files that a run reads, by flag; the backbone itself knows of weights that are a word.

    Args:
        config: The run.
        digest: Of a file; one that remembers serves many runs.
    """
    init = [] if config.init in INITS else [config.init]
    return hashes_of(config, {"content": [config.content], "style": split_list(config.style), "init": init}, digest)


def hashes_of(
    config: object, given: Mapping[str, Sequence[str]], digest: Callable[[Path], str] = sha256_of
) -> dict[str, str]:
    """The same for any command: `given` are the files by flag."""
    found = {}
    path = None if is_word(config.weights) else find(config.weights)
    if path is not None:
        found["weights"] = digest(path)
    for flag, names in given.items():
        paths = [bundled.find(name, "examples", ("", ".jpg", ".png")) for name in names]
        if paths and None not in paths:  # of a finished run, what it read may be gone
            found[flag] = ",".join(map(digest, paths))
    return found


def check_paths(config: object, given: Sequence[str]) -> None:
    """Raises `InputError` where OUTPUT, or what stands beside it, must not be written; `given` is what is read."""
    images.format_of(config.output, bit_depth=getattr(config, "bit_depth", 8))
    for name, value in flags.resolved(config).items():
        if name in flags.PATHS and not flags.fits_a_line(value):
            raise InputError(f"--{name}={value!r}: expected a name in UTF-8 without line breaks")
    written = outputs(config)
    places = [os.path.realpath(path) for path in written]
    for name in filter(os.path.exists, given):
        replaced = os.path.realpath(name) in places
        if replaced or (config.save_every and is_intermediate(config.output, name)):
            raise InputError(f"--output={config.output}: would replace {name}, which is read; expected another name")
    for path in written:
        files.check_place(path)
        if path.suffix in OWN_ENDINGS and bundled.is_file(path) and not is_ours(path):
            raise InputError(
                f"--output={config.output}: would replace {path}, which no run of jnst wrote; expected another name"
            )


def make_record(
    result: "Result",
    *,
    flags: dict[str, object],
    inputs: dict[str, str],
    weights: dict[str, str],
    device: str,
    size: Sequence[int],
    compile_seconds: float,
    run_seconds: float,
) -> dict[str, object]:
    """What OUTPUT.json holds.

    Args:
        result: Of the run.
        flags: Resolved.
        inputs: Hashes by flag.
        weights: The backbone's name and hash.
        device: Where it ran.
        size: Width and height.
        compile_seconds: Of the preparation.
        run_seconds: Of the steps.
    """
    record = {
        "version": __version__,
        "device": device,
        "weights": weights,
        "inputs": inputs,
        "flags": flags,
        "size": list(size),
        "best_step": result.best_step,
        "stopped": result.stopped,
        "trace": result.trace,
        "compile_seconds": round(compile_seconds, 3),
        "run_seconds": round(run_seconds, 3),
    }
    if result.stopped == "diverged":
        record["diverged"] = {"step": result.bad_step, "term": result.bad_term}
    return record


def write_record(output: str, record: dict[str, object]) -> None:
    """Writes the record: strict JSON (no NaN)."""
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    write_atomically(record_path(output), text.encode())


def read_record(output: str) -> dict[str, object]:
    """The record that a run left beside OUTPUT; empty where there is none."""
    try:
        record = dict(json.loads(record_path(output).read_text("utf-8")))
        return record if {"flags", "inputs", "stopped", "trace"} <= record.keys() else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def write_flags(output: str, chosen: dict[str, object]) -> None:
    """Writes the run as a flagfile."""
    write_atomically(flags_path(output), flags.flagfile(chosen).encode())


def outputs(config: StylizeConfig) -> tuple[Path, ...]:
    """A file of every kind that a run writes, to be tried before it starts."""
    path = Path(config.output)
    found = [path, record_path(config.output), flags_path(config.output)]
    if config.checkpoint_every:
        found.append(checkpoint.path_of(config.output))
    if config.save_every:
        found.append(intermediate(config.output, config.steps))
    return tuple(found)


def traces(output: str) -> tuple[Path, ...]:
    """What an earlier run may have left that a later `--resume` would look at."""
    return record_path(output), checkpoint.path_of(output)


def sweep(output: str) -> None:
    """Removes the halves of files that a killed run left; only for one that is alone with its output."""
    path = Path(output)
    own = [path, record_path(output), flags_path(output), checkpoint.path_of(output)]
    between = re.escape(part_prefix(intermediate(output, 0))).replace("000000", r"\d{6,}")
    remove_parts(path.parent, *(re.escape(part_prefix(one)) for one in own), between)


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
    """Whether a file with one of `OWN_ENDINGS` was written by a run, so that another may replace it."""
    if path.suffix == ".ckpt":
        return bool(checkpoint.read_facts(path))
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".flags":
            return text.startswith(flags.MARK)
        record = dict(json.loads(text))
        return "trace" in record or record.get("command") == "explore"  # whose other looks make no steps
    except (OSError, ValueError, TypeError):
        return False
