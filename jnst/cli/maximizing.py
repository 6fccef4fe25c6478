"""What `explore maximize` makes, as a `run.Work`."""

from pathlib import Path

import jax
import numpy as np

from jnst import api, images, inputs
from jnst.cli import download, report, run
from jnst.cli.lines import say
from jnst.config import MaximizeConfig, parse_channels
from jnst.errors import InputError
from jnst.images import Picture
from jnst.images.plots import captioned_sheet
from jnst.nets import vgg
from jnst.tasks import maximize as task

__all__ = ["work_of"]

_COLUMNS = 8


def work_of(config: MaximizeConfig) -> run.Work:
    """What a run makes."""
    return _Maximizing(config)


class _Maximizing(run.Work):
    """A sheet of the pictures that excite channels most."""

    terms = ("activation",)

    def __init__(self, config: MaximizeConfig):
        super().__init__(config)
        self._reached = ()

    @property
    def source(self):
        return f"--layers={self.config.layers}"

    def hashes(self):
        return report.hashes_of(self.config, {})

    def read(self):
        config = self.config
        layers = tuple(layer for layer, _ in parse_channels("layers", config.layers))
        backbone = self.backbone = inputs.read_backbone(config, {"layers": layers}, progress=download.Bar)
        self._chosen = task.channels_of(backbone.params, config)
        least = vgg.min_size(layers, backbone.padding)
        if config.size < least:
            raise InputError(f"--size={config.size}: expected at least {least} for --layers={config.layers}")
        self._count = sum(len(channels) for _, channels in self._chosen)
        images.check_encodable(self._sheet_size(), images.format_of(config.output))
        say(f"weights: {backbone.name}  channels: {self._count}  size: {config.size}  steps: {config.steps}")
        return backbone

    def prepare(self, snapshot):
        return task.prepare(
            jax.random.key(self.config.seed),
            self.backbone.params,
            self.config,
            room=api.room(self.config.device),
            snapshot=snapshot,
            **self._network(),
        )

    def _network(self):
        return {"padding": self.backbone.padding, "standardize": self.backbone.standardize}

    def preview(self, image):
        return Picture(self._sheet(image))

    def picture(self, result):
        self._reached = task.activations(self.backbone.params, result.image, self.config, **self._network())
        for layer, channels, numbers in self._by_layer(self._reached):
            pairs = zip(channels, numbers, strict=True)
            say(f"{layer}: " + ", ".join(f"{channel}: {_short(number)}" for channel, number in pairs))
        return self.preview(result.image)

    def _by_layer(self, values):
        """Layer, its channels, and their part of what there is one of for each lane."""
        first = 0
        for layer, channels in self._chosen:
            yield layer, channels, values[first : first + len(channels)]
            first += len(channels)

    def _sheet_size(self):
        """Width and height, by a sheet with pictures of one pixel, as a large one may not fit into memory twice."""
        height, width, _ = self._sheet([np.zeros((1, 1, 3))] * self._count).shape
        columns = min(_COLUMNS, max(len(channels) for _, channels in self._chosen))
        rows = sum(-(-len(channels) // columns) for _, channels in self._chosen)
        return width, height + rows * (self.config.size - 1)

    def _sheet(self, pictures):
        """With the activations below, once they are known."""
        captions = [str(channel) for _, channels in self._chosen for channel in channels]
        if self._reached:
            captions = [f"{one}: {_short(number)}" for one, number in zip(captions, self._reached, strict=True)]
        tiles = list(zip(captions, pictures, strict=True))
        name = Path(self.backbone.name).name  # so that the sheet is the same from any folder
        sections = [(f"{layer} of {name}", of_layer) for layer, _, of_layer in self._by_layer(tiles)]
        size = self.config.size
        return captioned_sheet(sections, side=size, columns=_COLUMNS, letters=max(10, min(16, size // 9)))

    def more(self, result):
        return {
            "channels": {
                layer: [
                    {"channel": channel, "activation": float(f"{number:.6g}")}
                    for channel, number in zip(channels, numbers, strict=True)
                ]
                for layer, channels, numbers in self._by_layer(self._reached)
            }
        }

    def kind(self, result):
        return f"{self._count} channels after step {result.best_step}"


def _short(number):
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"
