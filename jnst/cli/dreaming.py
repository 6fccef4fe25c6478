"""What `dream` makes, as a `run.Work`."""

import jax
import jax.numpy as jnp
import numpy as np

from jnst import api, images, inputs
from jnst.cli import download, report, run
from jnst.cli.lines import say
from jnst.config import DREAM_AXES, DreamConfig, convolution_of, parse_channels, swept
from jnst.errors import InputError
from jnst.images import Picture
from jnst.nets import vgg
from jnst.tasks import dream as task

__all__ = ["noise", "work_of"]


def work_of(config: DreamConfig) -> "_Dreaming":
    """What a run dreams; a film `show`s it one frame after the other."""
    return _Dreaming(config)


def noise(size: int, seed: int) -> np.ndarray:
    """A square picture to dream on where there is none: gray with a little noise, `[size, size, 3]`."""
    rng = np.random.default_rng(seed)
    return (0.5 + rng.uniform(-0.1, 0.1, (size, size, 3))).astype(np.float32)


class _Dreaming(run.Work):
    """A dream of a picture; of a film, of one after the other."""

    terms = ("activation",)

    def __init__(self, config: DreamConfig):
        super().__init__(config)
        self._frame = 1

    @property
    def source(self):
        return self.config.image

    def hashes(self):
        given = {"image": [] if self.config.image == "noise" else [self.config.image]}
        given["guide"] = [self.config.guide] if self.config.guide else []
        return report.hashes_of(self.config, given)

    def read(self):
        config = self.config
        channels = dict(parse_channels("layers", config.layers))
        layers = tuple(channels)
        padding = "zeros" if config.padding == "auto" else config.padding
        if config.image == "noise":
            picture = Picture(noise(config.size, config.seed))
        else:
            picture = inputs.read_picture("image", config.image, config.size, layers, padding)
        images.check_encodable(picture.size, "PNG" if config.zoom else images.format_of(config.output))
        guide = None
        if config.guide:
            guide = inputs.read_picture("guide", config.guide, max(picture.size), layers, padding)
        backbone = self.backbone = inputs.read_backbone(config, {"layers": layers}, progress=download.Bar)
        for name, chosen in channels.items():
            count = backbone.params[convolution_of(name)]["kernel"].shape[-1]
            if any(channel >= count for channel in chosen):
                raise InputError(f"--layers={config.layers}: {name} has channels 0 to {count - 1}")
        least = vgg.min_size(layers, backbone.padding)
        if min(picture.size) < least:
            raise InputError(f"--size={config.size}: expected at least {least} for --layers={config.layers}")
        self.alpha = picture.alpha
        self.guide = guide and guide.opaque()
        self._least = max(least, 16)
        sizes = self.show(picture.opaque())
        if picture.note:
            say(picture.note)
        width, height = picture.size
        say(f"image: {width}x{height}  weights: {backbone.name}  layers: {config.layers}")
        say("octaves: " + ", ".join("{}x{}".format(*size) for size in sizes) + f"  steps: {config.steps} each")
        if len(sizes) < config.octaves:
            say(f"octaves: {config.octaves - len(sizes)} would be too small, and are left out")
        return backbone

    def show(self, rgb: np.ndarray, *, frame: int = 1) -> list[tuple[int, int]]:
        """What is dreamed on, after `read`: `[H, W, 3]` in [0, 1], of a film the frame with this number.

        Returns:
            Width and height of the octaves.
        """
        self._frame = frame
        picture, config = Picture(rgb), self.config
        sizes = task.octave_sizes(picture.size, config.octaves, config.octave_scale, self._least)
        self.pictures = [images.resize(picture, size).rgb for size in sizes]
        return sizes

    def prepare(self, snapshot):
        # The first frame of a film is the picture that there would be without one.
        key, lanes = jax.random.key(self.config.seed), ()
        if self.config.axis:
            _, lanes = swept(self.config, DREAM_AXES)
            key = jnp.stack([jax.random.key(run.seed) for run in lanes])
        return task.prepare(
            key if self._frame == 1 else jax.random.fold_in(key, self._frame),
            self.backbone.params,
            self.pictures,
            self.config,
            guide=self.guide,
            lanes=lanes,
            padding=self.backbone.padding,
            standardize=self.backbone.standardize,
            room=api.room(self.config.device),
            snapshot=snapshot,
        )

    def preview(self, image):
        if self.config.axis:
            axes, _ = swept(self.config, DREAM_AXES)
            return run.sheet_of(axes, image)
        return Picture(image, self.alpha)

    def kind(self, result):
        step = result.trace[-1]["step"] if result.trace else 0
        return f"the dream after step {step}"
