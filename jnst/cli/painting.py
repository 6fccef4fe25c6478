"""What `stylize` paints, as a `run.Work`; and what a run of it would take."""

import dataclasses

from jnst import api
from jnst.cli import download, estimate, report, run
from jnst.cli.command import DONE
from jnst.cli.lines import say
from jnst.config import StylizeConfig
from jnst.images import Picture
from jnst.weights import fetch

__all__ = ["dry_run", "work_of"]


def dry_run(config: StylizeConfig) -> int:
    """Says what a run would take. Returns the exit code."""
    if config.weights in fetch.DOWNLOADS and not fetch.here(config.weights):
        say(f"{config.weights} is not here: a run would first {download.describe(fetch.DOWNLOADS[config.weights])}")
        config = dataclasses.replace(config, weights="random")  # of the same widths, so the same costs
    work = _Painting(config)
    with run.enough_memory(work), api.computing(config) as device:
        run.say_device(device)
        work.read()
        say(estimate.describe(work.inputs, config))
    return DONE


def work_of(config: StylizeConfig) -> run.Work:
    """What a run paints."""
    return _Painting(config)


class _Painting(run.Work):
    """A content picture in the manner of others."""

    terms = ("total", "content", "style", "tv")

    @property
    def source(self):
        return self.config.content

    def hashes(self):
        return report.hashes(self.config)

    def read(self):
        inputs = self.inputs = api.read_inputs(self.config, progress=download.Bar)
        pictures = (inputs.content, *inputs.styles, inputs.init)
        for note in dict.fromkeys(picture.note for picture in pictures if picture and picture.note):
            say(note)
        width, height = inputs.content.size
        styles = ", ".join("{}x{}".format(*style.size) for style in inputs.styles)
        steps = sum(scale.steps for scale in (*inputs.smaller, inputs))
        say(f"content: {width}x{height}  style: {styles}  weights: {inputs.backbone.name}  steps: {steps}")
        if inputs.smaller:
            scales = ", ".join("{}x{} ({})".format(*s.content.size, s.steps) for s in (*inputs.smaller, inputs))
            say(f"scales: {scales} steps")
        return inputs.backbone

    def prepare(self, snapshot):
        return api.prepare(self.inputs, self.config, snapshot=snapshot)

    def preview(self, image):
        return Picture(image, self.inputs.content.alpha)

    def kind(self, result):
        if self.config.average_decay and result.stopped != "diverged":
            return f"the average of the iterates up to step {result.best_step}"
        return super().kind(result)
