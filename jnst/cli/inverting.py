"""What `invert` makes, as a `run.Work`."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jnst import api, images, inputs
from jnst.cli import download, report, run
from jnst.cli.lines import say
from jnst.config import INVERT_AXES, InvertConfig, swept
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
        blank = np.broadcast_to(np.float32(1), (len(self._rows()), *self.image.shape))
        names, errors = config.names, [math.inf] * len(self._rows())
        sheet = self._sheet([blank] * len(names), [errors] * len(names))
        images.check_encodable(sheet.shape[1::-1], images.format_of(config.output))  # not after all the work
        if picture.note:
            say(picture.note)
        width, height = picture.size
        starts = f"  starts: {config.restarts}" if config.restarts > 1 else ""
        say(f"image: {width}x{height}  weights: {backbone.name}  steps: {config.steps} a layer{starts}")
        return backbone

    def prepare(self, snapshot):
        key, lanes = jax.random.key(self.config.seed), ()
        if self.config.axis:
            _, lanes = swept(self.config, INVERT_AXES)
            key = jnp.stack([jax.random.key(lane.seed) for lane in lanes])
        return task.prepare(
            key,
            self.backbone.params,
            self.image,
            self.config,
            lanes=lanes,
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
        return Picture(self._sheet(result.kept, self.errors))

    def _sheet(self, found, errors):
        """A row for each start or lane: the picture, and those that each layer knows."""
        config, rows = self.config, []
        for number, heading in enumerate(self._rows()):
            tiles = [("original", self.image)]
            for layer, pictures, each in zip(config.names, found, errors, strict=False):  # or as many as there are
                tiles.append(
                    (f"{layer}: {_percent(each[number])}", pictures if pictures.ndim == 3 else pictures[number])
                )
            rows.append((heading, tiles))
        letters = max(10, min(16, config.tile // 14))
        return captioned_sheet(rows, side=config.tile, columns=1 + len(config.names), letters=letters)

    def _rows(self):
        """What the rows are called."""
        if self.config.axis:
            axes, _ = swept(self.config, INVERT_AXES)
            named = ([f"{axis.flag}={text}" for text in axis.texts] for axis in axes)
            return [", ".join(words) for words in itertools.product(*named)]
        count = self.config.restarts
        return [f"start {number + 1}" for number in range(count)] if count > 1 else [""]

    def more(self, result):
        # A start whose loss never was a number has no error, and JSON no NaN.
        found = [[error if math.isfinite(error) else None for error in errors] for errors in self.errors]
        by_layer = zip(self.config.names, found, strict=False)
        return {"relative_errors": {layer: errors if len(errors) > 1 else errors[0] for layer, errors in by_layer}}

    def kind(self, result):
        layers, step = len(self.config.names), result.trace[-1]["step"] if result.trace else 0
        if not result.stopped:
            return f"{layers} layers inverted"
        done = min(step // self.config.steps, len(result.kept))
        unfinished = f", {self.config.names[done]} unfinished" if done < len(result.kept) else ""
        return f"{done} of {layers} layers{unfinished}"


def _percent(error):
    return f"{100 * error:.2g}%" if error < 0.1 else f"{100 * error:.0f}%"
