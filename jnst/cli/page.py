"""A grid as one web page: thumbnails, curves, losses against each other, a table. It asks nothing of any network."""

import base64
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import jinja2

__all__ = ["Cell", "front", "render"]

_TERMS = ("total", "content", "style", "tv")
# Points of all curves of one term together, and of one curve: what a browser draws at once, in a file that can be sent.
_MOST_POINTS, _MOST_OF_A_CURVE = 80_000, 400
# Of a chart, in its own units.
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 520, 330, 62, 500, 10, 288
# Beyond, sums and ratios in an axis would not be finite.
_LARGEST = 1e300
_COLORS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A run as the page shows it.

    Attributes:
        name: Its files' stem.
        settings: The value of each axis, as shown.
        status: Empty where it finished, else why not: "not yet", "diverged at step 12".
        picture: File name beside the page, empty where there is none.
        flags: Text of its flagfile, which is `name` + ".flags" beside the page; empty where there is none yet.
        terms: Weighted loss terms of the picture: total, content, style, tv, as far as known.
        seconds: How long it took.
        trace: Rows of step, total, content, style, tv.
        thumbnail: A small JPEG, empty where there is none.
        losses: Content and style loss without their weights.
        on_front: Whether it is marked as one that no other beats in both losses.
        measure: Runs of one measure have losses that can be compared, and a front together.
    """

    name: str
    settings: tuple[str, ...]
    status: str
    picture: str
    flags: str
    terms: Mapping[str, float]
    seconds: float | None
    trace: Sequence[Mapping[str, float]]
    thumbnail: bytes
    losses: tuple[float, float] | None
    on_front: bool
    measure: int = 0


def front(points: Sequence[tuple[float, float] | None]) -> list[bool]:
    """Which points no other point beats: is as small in both, and smaller in one. Equal points stand and fall together.

    None and what is not finite are never among them.

    >>> front([(1, 5), (2, 2), (2, 3), None, (2, 2), (5, 1), (5, 2)])
    [True, True, False, False, True, True, False]
    """
    best, lowest = set(), math.inf
    for point in sorted({tuple(one) for one in points if one is not None and all(map(math.isfinite, one))}):
        if point[1] < lowest:
            lowest = point[1]
            best.add(point)
    return [one is not None and tuple(one) in best for one in points]


def render(
    title: str,
    axes: Sequence[tuple[str, Sequence[str]]],
    cells: Sequence[Cell],
    sheet: bytes,
    *,
    command: str,
    notes: Sequence[str] = (),
) -> str:
    """The page, complete in itself; pictures and flagfiles beside it are only linked. Equal arguments, equal text.

    Args:
        title: Heading.
        axes: Names and shown values: the first goes across, the second down, every choice of the others is a page.
        cells: One for each combination, as `itertools.product` orders them (the last axis varies fastest).
        sheet: The contact sheet, PNG or JPEG; empty: none is shown.
        command: What made the grid.
        notes: Lines to be read before anything else.

    Raises:
        ValueError: more or fewer cells than combinations.
    """
    if len(cells) != math.prod(len(values) for _, values in axes):
        raise ValueError(f"{len(cells)} cells for a grid of {' x '.join(str(len(values)) for _, values in axes)}")
    # A color for each value of the first axis, where eyes can tell them apart.
    colors = axes[0] if axes and 1 < len(axes[0][1]) <= _COLORS else ("", ())
    runs = [
        {**_run(cell), "number": number, "color": number * len(colors[1]) // len(cells) if colors[1] else "none"}
        for number, cell in enumerate(cells)
    ]
    text = _template().render(
        title=title,
        command=command,
        notes=notes,
        axes=[name for name, _ in axes],
        terms=_TERMS,
        runs=runs,
        finished=sum(not cell.status for cell in cells),
        pages=_pages(axes, runs),
        sheet=_data_uri(sheet),
        curves=_curves(cells, runs),
        scatter=_scatter(cells, runs),
        colors=colors,
        box={"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM},
    )
    return text.encode("utf-8", "replace").decode()  # file names may hold what is no text


@functools.cache
def _template():
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": _number, "sortable": _sortable}
    return environment.from_string(Path(__file__).with_name("page.html.jinja").read_text("utf-8"))


def _run(cell):
    """What the template says of one run."""
    return {
        "name": cell.name,
        "settings": cell.settings,
        "status": cell.status,
        "picture": _quoted(cell.picture),
        "thumbnail": _data_uri(cell.thumbnail),
        "flags": cell.flags,
        "flags_file": _quoted(f"{cell.name}.flags"),
        "numbers": [cell.terms.get(term) for term in _TERMS] + [cell.seconds],
        "on_front": cell.on_front,
    }


def _number(value):
    """Four digits, as much as a reader compares."""
    return "" if value is None else f"{value:.4g}"


def _sortable(value):
    """All of its digits; nothing where there is no number to sort by."""
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def _quoted(name):
    return quote(os.fsencode(name))


def _data_uri(data):
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}" if data else ""


def _pages(axes, runs):
    """Heading, column labels and labelled rows of runs for each choice of the third axis and further ones."""
    named = [[f"{name}={value}" for value in values] for name, values in axes]
    across, down, *others = [*named, *[[""]] * (2 - len(named))]
    headings = list(itertools.product(*others))
    for page, heading in enumerate(headings):
        rows = [
            (label, [runs[(column * len(down) + row) * len(headings) + page] for column in range(len(across))])
            for row, label in enumerate(down)
        ]
        yield "   ".join(heading), across, rows


# ---- charts


def _curves(cells, runs):
    """A chart for each term that was traced: every run's values by step."""
    traced = sum(bool(cell.trace) for cell in cells)
    most = max(8, min(_MOST_OF_A_CURVE, _MOST_POINTS // max(1, traced)))
    charts = []
    for term in _TERMS:
        lines = [
            (run, _thinned([(row["step"], row[term]) for row in cell.trace if _usable(row.get(term))], most))
            for run, cell in zip(runs, cells, strict=True)
        ]
        lines = [(run, points) for run, points in lines if points]
        if lines:
            steps = [step for _, points in lines for step, _ in points]
            across = _Axis(min(steps), max(*steps, min(steps) + 1), _LEFT, _RIGHT, logarithmic=False)
            # A run that diverged would press all others flat.
            finished = [value for run, points in lines if not run["status"] for _, value in points]
            values = [value for _, points in lines for _, value in points]
            down = _Axis.of(finished or values, _BOTTOM, _TOP)
            shown = [(run, " ".join(f"{across(x)},{down(y)}" for x, y in points)) for run, points in lines]
            beyond = bool(finished) and not min(finished) <= min(values) <= max(values) <= max(finished)
            charts.append({"term": term, "across": across, "down": down, "lines": shown, "beyond": beyond})
    return charts


def _thinned(points, most):
    """At most `most` points: the first, the last, and between them the lowest and the highest of each stretch."""
    if len(points) <= most:
        return points
    count = (most - 2) // 2
    kept = {0, len(points) - 1}
    for part in range(count):
        stretch = range(part * len(points) // count, (part + 1) * len(points) // count)
        kept |= {pick(stretch, key=lambda index: points[index][1]) for pick in (min, max)}
    return [points[index] for index in sorted(kept)]


def _scatter(cells, runs):
    """Content loss across, style loss down; None where no run has both."""
    known = [
        (run, cell.losses)
        for run, cell in zip(runs, cells, strict=True)
        if cell.losses is not None and all(map(_usable, cell.losses))
    ]
    if not known:
        return None
    content, style = zip(*(losses for _, losses in known), strict=True)
    across, down = _Axis.of(content, _LEFT, _RIGHT), _Axis.of(style, _BOTTOM, _TOP)
    points = [(run, across(x), down(y), f"content {x:.4g}, style {y:.4g}") for run, (x, y) in known]
    fronts: dict[int, list] = {}
    for run, losses in known:
        if run["on_front"]:
            fronts.setdefault(cells[run["number"]].measure, []).append(losses)
    joined = [" ".join(f"{across(x)},{down(y)}" for x, y in sorted(best)) for best in fronts.values()]
    return {"across": across, "down": down, "points": points, "fronts": joined}


def _usable(value):
    return value is not None and abs(value) < _LARGEST  # NaN is not


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Values to places between `start` and `end`; where `logarithmic`, `low` and `high` are logarithms."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    @classmethod
    def of(cls, values, start, end):
        """Logarithmic where all are positive, else linear; with a little room at both ends."""
        low, high = min(values), max(values)
        logarithmic = low > 1 / _LARGEST
        if logarithmic:
            low, high = math.log10(low), math.log10(high)
        room = (high - low) * 0.04
        if room <= 1e-9 * max(abs(low), abs(high), logarithmic):  # all the same
            room = 0.3 if logarithmic else abs(high) * 0.1 or 1
        return cls(low - room, high + room, start, end, logarithmic)

    def __call__(self, value):
        """The place of a value, to a tenth; what lies beyond an end stands at that end."""
        if not self.logarithmic:
            return self._place(value)
        return self._place(math.log10(value) if value > 0 else self.low)

    def _place(self, value):
        share = min(1, max(0, (value - self.low) / (self.high - self.low)))
        return f"{self.start + share * (self.end - self.start):.1f}".removesuffix(".0")

    @property
    def ticks(self):
        """(Place, label) of round values, about three to eight of them."""
        if not self.logarithmic:
            values = _round_values(self.low, self.high)
        elif self.high - self.low > 2.5:
            every = math.ceil((self.high - self.low) / 7)
            decades = range(math.ceil(self.low / every) * every, math.floor(self.high) + 1, every)
            return [(self._place(decade), f"1e{decade}") for decade in decades]
        else:
            values = [digit * 10.0**decade for decade in _whole(self.low, self.high) for digit in (1, 2, 5)]
            values = [value for value in values if self.low <= math.log10(value) <= self.high]
            if len(values) < 3:
                values = _round_values(10**self.low, 10**self.high)
        labels = [_short(value) for value in values]
        if len(set(labels)) < len(labels):  # close together: four digits do not tell them apart
            labels = [f"{value:.10g}" for value in values]
        return [(self(value), label) for value, label in zip(values, labels, strict=True)]


def _short(value):
    """`20000`, `2e7`, `0.0005`."""
    text = f"{value:.10g}"
    text = text if len(text) < 7 else f"{value:.4g}"
    return text.replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def _whole(low, high):
    """The whole numbers around and between both."""
    return range(math.floor(low), math.ceil(high) + 1)


def _round_values(low, high):
    """Multiples of 1, 2 or 5 times a power of ten between `low` and `high`."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
