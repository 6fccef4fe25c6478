"""What `invert` makes, as a `run.Work`."""

import jax

from jnst import api, images, inputs
from jnst.cli import download, report, run
from jnst.cli.lines import say
from jnst.config import InvertConfig
from jnst.images import Picture
from jnst.images.plots import captioned_sheet
from jnst.tasks import invert as task

__all__ = ["work_of"]


def work_of(config: InvertConfig) -> run.Work:
    """What a run inverts."""
    return _Inversions(config)


class _Inversions(run.Work):
    terms = ("total", *task.SUMMANDS)

    @property
    def source(self):
        return self.config.image

    def hashes(self):
        return report.hashes_of(self.config, {"image": [self.config.image]})

    def read(self):
        config = self.config
        padding = "zeros" if config.padding == "auto" else config.padding
        picture = inputs.read_picture("image", config.image, config.size, config.names, padding)
        backbone = self.backbone = inputs.read_backbone(config, {"layers": config.names}, progress=download.Bar)
        self.image = picture.opaque()
        if picture.note:
            say(picture.note)
        width, height = picture.size
        starts = f"  starts: {config.restarts}" if config.restarts > 1 else ""
        say(f"image: {width}x{height}  weights: {backbone.name}  steps: {config.steps} a layer{starts}")
        return backbone

    def prepare(self, snapshot):
        return task.prepare(
            jax.random.key(self.config.seed),
            self.backbone.params,
            self.image,
            self.config,
            room=api.room(self.config.device),
            snapshot=snapshot,
            **self._network(),
        )

    def _network(self):
        return {"padding": self.backbone.padding, "standardize": self.backbone.standardize}

    def preview(self, image):
        return Picture(image if image.ndim == 3 else images.contact_sheet(list(image)))

    def picture(self, result):
        config = self.config
        self.errors = task.relative_errors(self.backbone.params, self.image, result.kept, config, **self._network())
        for layer, errors in zip(config.names, self.errors, strict=False):
            say(f"{layer}: relative error {', '.join(map(_percent, errors))}")
        rows = []
        for number in range(config.restarts):
            tiles = [("original", self.image)]
            for layer, kept, errors in zip(config.names, result.kept, self.errors, strict=False):
                one = kept if kept.ndim == 3 else kept[number]
                tiles.append((f"{layer}: {_percent(errors[number])}", one))
            rows.append((f"start {number + 1}" if config.restarts > 1 else "", tiles))
        letters = max(10, min(16, config.tile // 14))
        return Picture(captioned_sheet(rows, side=config.tile, columns=1 + len(config.names), letters=letters))

    def more(self, result):
        return {
            "relative_errors": {
                layer: errors if len(errors) > 1 else errors[0]
                for layer, errors in zip(self.config.names, self.errors, strict=False)
            }
        }

    def kind(self, result):
        done, layers = len(result.kept), len(self.config.names)
        return f"{done} of {layers} layers, the last one unfinished" if result.stopped else f"{layers} layers inverted"


def _percent(error):
    return f"{100 * error:.2g}%" if error < 0.1 else f"{100 * error:.0f}%"
