"""What every run says of itself: records on the way, rows of its trace, a result."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jnst.compiler import platform
from jnst.config import StylizeConfig
from jnst.types import Snapshot

__all__ = [
    "ON_DEVICE",
    "Callback",
    "Record",
    "Result",
    "first_bad",
    "is_row",
    "most_steps",
    "next_stop",
    "row",
]

ON_DEVICE = 10
"""Most steps that a GPU or TPU makes between two looks of the host: enough that the host costs nothing, few enough
that Ctrl-C is answered soon."""


class Record(NamedTuple):
    """What a callback sees after a chunk of steps."""

    step: int
    """Updates made, at all scales together."""
    steps: int
    """Updates that were asked for."""
    terms: dict[str, float]
    """Weighted `total`, `content`, `style` and `tv` at this step."""
    image: Callable[[], np.ndarray]
    """Fetches the image at this step, `[H, W, 3]` in [0, 1]; only while the callback runs."""
    snapshot: Callable[[], Snapshot]
    """Fetches all that `restore` needs to go on from here; only while the callback runs."""
    size: tuple[int, int] = (0, 0)
    """Rows and columns of the present scale."""
    share: float = 0.0
    """Of the whole work that is done, up to 1."""


Callback = Callable[[Record], bool | None]
"""Called between chunks; a true answer stops the run after this step."""


class Result(NamedTuple):
    """What a run leaves."""

    image: np.ndarray | None
    """The best iterate, or the average over them where the config asks for it, `[H, W, 3]` float32 in [0, 1]; None
    where not even the start had a finite loss."""
    best_step: int
    """The step that `image` is from; of an average, the last one in it."""
    trace: list[dict[str, float]]
    """Rows of step, total, content, style, tv: step 0, each `print_every`, and the last step made. Of several scales,
    each row has its `size`, and a scale begins with the step that the one before ended with."""
    stopped: str
    """Empty, `interrupted` or `diverged`."""
    bad_step: int
    """The step whose loss was not finite, -1 where none was."""
    bad_term: str
    """The first term that was not finite at that step."""


def most_steps() -> int:
    """How many steps the device here makes between two looks of the host: on a CPU one, since XLA runs a convolution's
    gradient 3 to 4 times slower inside a loop there, and a call costs nothing beside a step."""
    return 1 if platform() == "cpu" else ON_DEVICE


def first_bad(terms: Mapping[str, float]) -> str:
    """The first term that is not finite, empty where all are."""
    if math.isfinite(terms["total"]):
        return ""
    # A sum of finite terms may still overflow: then it is the total that is named.
    return next((name for name in ("content", "style", "tv") if not math.isfinite(terms[name])), "total")


def is_row(step: int, config: StylizeConfig, *, first: int = 0, last: int | None = None) -> bool:
    """Whether the trace has a row of this step; `first` and `last` are those of its scale, counted from the start."""
    last = config.steps if last is None else last
    return step in (first, last) or (config.print_every > 0 and step % config.print_every == 0)


def next_stop(done: int, config: StylizeConfig, *, last: int | None = None) -> int:
    """The next step that somebody wants to see: the start, one to be printed or kept, or the last."""
    if done < 0:
        return 0
    each = (every for every in (config.print_every, config.save_every, config.checkpoint_every) if every > 0)
    return min([config.steps if last is None else last, *(done - done % every + every for every in each)])


def row(step: int, terms: Mapping[str, float]) -> dict[str, float]:
    """A row of the trace."""
    # The sum again, in double precision: in the record the total is what its terms add up to.
    return {"step": step, "total": terms["content"] + terms["style"] + terms["tv"]} | {
        name: terms[name] for name in ("content", "style", "tv")
    }
