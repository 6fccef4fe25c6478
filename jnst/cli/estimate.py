"""`--dry_run`: what a run would take."""

import dataclasses
import time

from jnst import api
from jnst.config import StylizeConfig
from jnst.nets import vgg
from jnst.tasks import stylize as task

__all__ = ["describe", "words"]

_PROBE = 128  # longest side of the pictures that a step is timed on
_PROBE_STEPS = 3


def describe(inputs: api.Inputs, config: StylizeConfig) -> str:
    """Size, memory and time, in lines.

    Memory is the compiled program's own account, for which nothing is computed. Time is that of a step on small
    copies of the pictures, scaled by the number of pixels.
    """
    width, height = inputs.content.size
    memory, plan = api.footprint(inputs, config)
    per_pixel = _seconds_per_pixel(inputs, config)
    seconds, steps, sizes = 0.0, 0, []
    for scale in (*inputs.smaller, inputs):
        across, down = scale.content.size
        seconds += per_pixel * across * down * (scale.steps + 1)
        steps += scale.steps
        sizes.append(f"{across}x{down}")
    # Two passes ahead and one back, and the tiles' surroundings.
    less = ", longer in tiles" if "tiles" in plan else ""
    lines = [
        f"size: {width}x{height}" + (f", by way of {', '.join(sizes[:-1])}" if inputs.smaller else ""),
        f"memory: {memory / 2**20:.0f} MiB beyond the program itself",
        *plan.splitlines(),
        f"time: about {words(seconds)} for {steps} steps, after the preparation{less}",
    ]
    return "\n".join(lines)


def _seconds_per_pixel(inputs, config):
    config = dataclasses.replace(config, tile="0")
    small = api.shrunk(inputs, max(_PROBE, _least(inputs, config)))
    prepared = api.prepare(small, config)
    marks = []

    def callback(record):
        marks.append((record.step, time.perf_counter()))
        return len(marks) > _PROBE_STEPS

    task.run(prepared, callback=callback)
    (first, start), (last, end) = marks[0], marks[-1]
    across, down = small.content.size
    return (end - start) / max(1, last - first) / (across * down)


def _least(inputs, config):
    """The longest side at which no picture's short side is too short for the network."""
    spec = task.objective_spec(config, inputs.backbone.padding)
    short = vgg.min_size(spec.content_layers + spec.style_layers, spec.padding)
    return max(-(-short * max(picture.size) // min(picture.size)) for picture in (inputs.content, *inputs.styles))


def words(seconds: float) -> str:
    """A length of time as one says it."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' if whole > 1 else ''}"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
