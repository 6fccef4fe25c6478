"""`--dry_run`: what a run would take."""

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
    memory = api.footprint(inputs, config)
    seconds = _seconds_per_step(inputs, config) * (config.steps + 1)
    return (
        f"size: {width}x{height}\n"
        f"memory: {memory / 2**20:.0f} MiB beyond the program itself\n"
        f"time: about {words(seconds)} for {config.steps} steps, after the preparation"
    )


def _seconds_per_step(inputs, config):
    small = api.shrunk(inputs, max(_PROBE, _least(inputs, config)))
    prepared = api.prepare(small, config)
    marks = []

    def callback(record):
        marks.append((record.step, time.perf_counter()))
        return len(marks) > _PROBE_STEPS

    task.run(prepared, callback=callback)
    (first, start), (last, end) = marks[0], marks[-1]
    pixels = [picture.size[0] * picture.size[1] for picture in (inputs.content, small.content)]
    return (end - start) / max(1, last - first) * pixels[0] / pixels[1]


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
