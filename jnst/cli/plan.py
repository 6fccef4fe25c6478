"""The runs of a grid: what each is, what it is called, which are done, and which share a program."""

import dataclasses
import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path

from jnst import api, bundled
from jnst.cli import checkpoint, flags, report
from jnst.config import Axis, GridConfig, StylizeConfig
from jnst.errors import InputError
from jnst.files import part_prefix, remove_parts, sha256_of
from jnst.grid import product
from jnst.tasks.stylize import many

__all__ = ["file_name", "Entry", "Group", "entries", "group", "identify", "labels", "look", "settle", "tidy"]

# A run that differs in these alone is the same run.
_IGNORED = checkpoint.MAY_DIFFER | {"device"}
_LONGEST_NAME = 160  # bytes; endings and temporary names must fit into 255


@dataclasses.dataclass(kw_only=True, eq=False)
class Entry:
    """One run of a grid. The fields with a default are filled in on the way."""

    index: int
    labels: tuple[str, ...]
    """The value of each axis, short."""
    texts: tuple[str, ...]
    """The value of each axis, as given."""
    config: StylizeConfig
    """Its `output` is the picture."""
    hashes: dict[str, str] = dataclasses.field(default_factory=dict)
    record: dict[str, object] = dataclasses.field(default_factory=dict)
    """What `NAME.json` holds; empty until the run is done."""
    kept: int | None = None
    """The step of the checkpoint to go on from, where there is one."""
    run: many.Run | None = None
    inputs: api.Inputs | None = None

    @property
    def picture(self) -> Path:
        """Where the picture lies."""
        return Path(self.config.output)

    @property
    def name(self) -> str:
        """Of the run, and of its files without their endings."""
        return self.picture.stem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that share a program, by the networks that they share (see `many.kin_key`)."""

    kin: tuple[tuple[Entry, ...], ...]

    @property
    def first(self) -> Entry:
        """Any of them: it stands for what they share."""
        return self.kin[0][0]


def labels(axis: Axis) -> tuple[str, ...]:
    """The values of an axis as short as they may be: of files, the name alone.

    >>> labels(Axis("style", ("art/a.jpg,art/b.jpg", "c.jpg"), ()))
    ('a+b', 'c')
    """
    if axis.flag not in flags.PATHS:
        return tuple(text or "none" for text in axis.texts)
    shorter = (lambda part: Path(part).stem, lambda part: Path(part).name, str)
    tables = [["+".join(map(short, flags.paths_in(axis.flag, text))) for text in axis.texts] for short in shorter]
    counts = [Counter(table) for table in tables]
    choices = zip(*tables, strict=True)  # of each value, from the shortest on
    return tuple(
        next((label for label, count in zip(labels, counts, strict=True) if count[label] == 1), labels[-1])
        for labels in choices
    )


def entries(config: GridConfig, axes: Sequence[Axis]) -> list[Entry]:
    """A run for every combination, the last axis varying fastest. The pictures' names sort and say the settings."""
    names = [field.name for field in dataclasses.fields(StylizeConfig)]
    base = {name: getattr(config, name) for name in names}
    columns = [list(zip(axis.values, labels(axis), axis.texts, strict=True)) for axis in axes]
    combinations = product({axis.flag: column for axis, column in zip(axes, columns, strict=True)})
    digits = len(str(len(combinations)))
    found = []
    for index, chosen in enumerate(combinations):
        values = {flag: flags.at_home(flag, value) for flag, (value, _, _) in chosen.items()}
        settings = "_".join(f"{flag}={label}" for flag, (_, label, _) in chosen.items())
        name = file_name(f"{index + 1:0{digits}}_{settings}")
        output = str(Path(config.output) / f"{name}.png")
        found.append(
            Entry(
                index=index,
                labels=tuple(label for _, label, _ in chosen.values()),
                texts=tuple(text for _, _, text in chosen.values()),
                config=StylizeConfig(**{**base, **values, "output": output}),
            )
        )
    return found


def file_name(text: str) -> str:
    """`text` as a name that every file system takes, of no more bytes than leave room for endings."""
    clean = re.sub(r"[^\w.+=,@-]+", "-", text).rstrip(".")
    return clean.encode()[:_LONGEST_NAME].decode(errors="ignore")


def identify(found: Sequence[Entry]) -> str:
    """Fills in the hashes of what the runs read. Returns one of all runs: equal where two processes mean the same.

    Raises:
        InputError: two runs are one, though their flags are written differently.
    """
    digest, seen = functools.cache(sha256_of), {}
    for entry in found:
        entry.hashes = report.hashes(entry.config, digest=digest)
        twin = seen.setdefault(_essence(flags.resolved(entry.config)), entry)
        if twin is not entry:
            raise InputError(
                f"--axis: {', '.join(entry.texts)} and {', '.join(twin.texts)} are the same run; "
                "expected different values"
            )
    # Paths may differ between hosts; what lies there may not.
    flat = [[{**vars(entry.config), **dict.fromkeys(flags.PATHS)}, entry.hashes] for entry in found]
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()


def settle(found: Sequence[Entry], folder: Path) -> None:
    """Finds the runs that an earlier grid left in the folder, under whatever name, and gives the others free names.

    A file that is not of this very run is never replaced: the run gets another name.
    """
    done, begun = {}, {}
    for path in sorted(folder.glob("*.json")):
        record = report.read_record(str(path))
        picture = path.with_suffix(".png")
        if _terms_of(record) and (bundled.is_file(picture) or record["best_step"] < 0):
            record["best_terms"] = _terms_of(record)
            done.setdefault(_essence(record["flags"]), []).append((picture, record["inputs"], record))
    for path in sorted(folder.glob("*.ckpt")):
        facts = checkpoint.read_facts(path)
        if "best_terms" in facts:
            begun.setdefault(_essence(facts["flags"]), []).append((path.with_suffix(".png"), facts["inputs"], facts))
    taken = set()
    for entry in found:
        essence = _essence(flags.resolved(entry.config))
        for table in (done, begun):
            match = next((one for one in table.get(essence, []) if _agree(entry.hashes, one[1])), None)
            if match is None:
                continue
            entry.config = dataclasses.replace(entry.config, output=str(match[0]))
            if table is done:
                entry.record = match[2]
            else:
                entry.kept = int(match[2]["step"])
            taken.add(match[0].name)
            break
    for entry in found:
        if not entry.record and entry.kept is None:
            free = _free_name(entry, folder, taken)
            taken.add(free.name)
            entry.config = dataclasses.replace(entry.config, output=str(free))


def tidy(found: Sequence[Entry], folder: Path) -> None:
    """Removes what a killed grid left: halves of files, and checkpoints of runs that are done."""
    remove_parts(folder, *(re.escape(part_prefix(name)) for name in ("grid.csv", "sheet.png", "index.html")))
    halves = any(folder.glob(".*.part"))
    for entry in found:
        if halves:
            report.sweep(entry.config.output)
        left = checkpoint.path_of(entry.config.output)
        if entry.record and "best_terms" in checkpoint.read_facts(left):
            left.unlink(missing_ok=True)


def look(found: Sequence[Entry]) -> None:
    """Takes in what other processes have finished since."""
    for entry in found:
        if not entry.record:
            record = report.read_record(entry.config.output)
            if _terms_of(record) and _is_of(entry, record["flags"], record["inputs"]):
                entry.record = record


def _essence(chosen):
    return json.dumps({name: value for name, value in chosen.items() if name not in _IGNORED}, sort_keys=True)


def _is_of(entry, chosen, inputs):
    """Whether flags and hashes are of this very run."""
    return _essence(chosen) == _essence(flags.resolved(entry.config)) and _agree(entry.hashes, inputs)


def _terms_of(record):
    """Of a run's picture; `stylize` leaves them where its trace has a row of the best step."""
    rows = [row for row in record.get("trace", []) if row["step"] == record["best_step"]]
    return record.get("best_terms") or (rows and {name: rows[0][name] for name in rows[0] if name != "step"}) or None


def _agree(now, before):
    return all(before.get(flag) == digest for flag, digest in now.items())


def _free_name(entry, folder, taken):
    stem, count = entry.picture.stem, 1
    while True:
        path = folder / (f"{stem}-{count}.png" if count > 1 else f"{stem}.png")
        endings = (path, *(path.with_suffix(ending) for ending in report.OWN_ENDINGS))
        if path.name not in taken and (not any(map(bundled.is_file, endings)) or _is_leftover(path, entry)):
            return path
        count += 1


def _is_leftover(picture, entry):
    """Whether files of this name are of this very run, killed before its record was written, or with a part taken."""
    if bundled.is_file(checkpoint.path_of(str(picture))):
        facts = checkpoint.read_facts(checkpoint.path_of(str(picture)))
        if not facts or not _is_of(entry, facts["flags"], facts["inputs"]):
            return False
    if bundled.is_file(report.record_path(str(picture))):
        record = report.read_record(str(picture))
        return bool(record) and _is_of(entry, record["flags"], record["inputs"])
    try:
        lines = report.flags_path(str(picture)).read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return False
    kept = dict(line.removeprefix("--").partition("=")[::2] for line in lines[1:])
    chosen = {name: str(value) for name, value in flags.resolved(entry.config).items()}
    return lines[:1] == [flags.MARK] and _essence(kept) == _essence(chosen)


def group(found: Sequence[Entry]) -> list[Group]:
    """The runs whose inputs are read, by program and within it by network."""
    groups: dict[Hashable, dict[Hashable, list[Entry]]] = {}
    for entry in found:
        backbone = entry.inputs.backbone
        program = many.program_key(entry.config, shape=entry.run.content.shape, padding=backbone.padding)
        kin = groups.setdefault((program, id(backbone)), {})
        kin.setdefault(many.kin_key(entry.run, standardize=backbone.standardize), []).append(entry)
    # By steps: in a batch, the shorter runs wait for the longest.
    steps = lambda entry: entry.config.steps  # noqa: E731
    return [Group(kin=tuple(tuple(sorted(one, key=steps)) for one in kin.values())) for kin in groups.values()]
