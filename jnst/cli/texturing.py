"""What `texture` makes: as a `run.Work` by Gram matrices, or at once from patches."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from jnst import api, files, images, inputs, loop, quilting
from jnst.cli import checkpoint, download, flags, report, run
from jnst.cli.command import DONE
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say
from jnst.cli.progress import Steps
from jnst.config import TEXTURE_AXES, TextureConfig, swept
from jnst.errors import InputError
from jnst.images import Picture
from jnst.nets import vgg
from jnst.tasks.stylize import texture as task
from jnst.tasks.stylize import textures

__all__ = ["quilt", "work_of"]


def work_of(config: TextureConfig) -> run.Work:
    """What a run synthesizes."""
    return _Texture(config)


class _Texture(run.Work):
    terms = ("total",)

    @property
    def source(self):
        return self.config.image

    def hashes(self):
        return report.hashes_of(self.config, {"image": [self.config.image]})

    def read(self):
        config = self.config
        images.check_encodable(config.shape, images.format_of(config.output))
        picture = images.load(config.image)
        sample = images.resize(picture, images.fit(picture.size, config.sample_size))
        self._least(sample, "zeros" if config.padding == "auto" else config.padding)  # before weights are fetched
        backbone = self.backbone = inputs.read_backbone(config, {"layers": config.names}, progress=download.Bar)
        least = self._least(sample, backbone.padding)
        self.sizes = task.sizes_of(config, least)
        if sample.note:
            say(sample.note)
        self.samples = []
        for size in self.sizes:
            shrunk = images.fit(sample.size, max(1, round(max(sample.size) * size[0] / config.shape[0])))
            # Too small for the network, a sample stays as large as it must be.
            factor = max(1.0, least / min(shrunk))
            shrunk = tuple(round(side * factor) for side in shrunk)
            self.samples.append(images.resize(Picture(sample.opaque()), shrunk).rgb)
        width, height = config.shape
        across, down = sample.size
        say(f"sample: {across}x{down}  texture: {width}x{height}  weights: {backbone.name}  method: {config.method}")
        return backbone

    def _least(self, sample, padding):
        """The shortest side that the layers can be computed of, which sample and output have."""
        config = self.config
        where = f"pixels on each side, for --layers={config.layers}"
        least = vgg.min_size(config.names, "wrap" if config.tileable else padding)
        if min(sample.size) < least:
            across, down = sample.size
            raise InputError(f"--image={config.image}: {across}x{down} pixels; expected at least {least} {where}")
        if min(config.shape) < least:
            raise InputError(f"--size={config.size}: expected at least {least} {where}")
        return least

    def prepare(self, snapshot):
        if len(self.sizes) > 1:
            say("scales: " + ", ".join("{}x{}".format(*size) for size in self.sizes))
        if self.config.axis:
            _, lanes = swept(self.config, TEXTURE_AXES)
            return textures.prepare(
                jnp.stack([jax.random.key(lane.seed) for lane in lanes]),
                self.backbone.params,
                self.samples,
                self.sizes,
                lanes,
                room=api.room(self.config.device),
                snapshot=snapshot,
                **self._network(),
            )
        return task.prepare(
            jax.random.key(self.config.seed),
            self.backbone.params,
            self.samples,
            self.sizes,
            self.config,
            devices=api.devices_of(self.config.device),
            room=api.room(self.config.device),
            snapshot=snapshot,
            **self._network(),
        )

    def _network(self):
        return {"padding": self.backbone.padding, "standardize": self.backbone.standardize}

    def preview(self, image):
        if self.config.axis:
            return run.sheet_of(swept(self.config, TEXTURE_AXES)[0], image)
        return Picture(image)

    def picture(self, result):
        if not self.config.axis:
            image, self.residuals = self._finished(result.image)
            return Picture(image)
        pairs = [self._finished(image) for image in result.image]
        self.residuals = [residuals for _, residuals in pairs]
        return self.preview([image for image, _ in pairs])

    def _finished(self, image):
        """The texture as it is shown, and its residuals."""
        if self.config.histogram == "match":
            image = images.match_histogram(image, self.samples[-1])
        found = task.gram_residuals(self.backbone.params, image, self.samples[-1], self.config, **self._network())
        say("Gram residuals: " + "  ".join(f"{name} {100 * value:.2g}%" for name, value in found.items()))
        return image, found

    def more(self, result):
        return {"gram_residuals": self.residuals}


def quilt(config: TextureConfig, interrupt: Interrupt) -> int:
    """Makes OUTPUT from patches of the sample, with record and flagfile. Returns the exit code.

    It takes seconds, so it keeps nothing on the way: Ctrl-C ends it at once, and `--resume` makes the same bytes again.

    Raises:
        InputError: something in the input is wrong, or another run is writing OUTPUT.
    """
    work = _Texture(config)
    with run.enough_memory(work), api.computing(config) as device, checkpoint.alone(config.output):
        backbone = work.read()
        for path in report.outputs(config):
            files.check_writable(path)
        report.sweep(config.output)
        begun = time.perf_counter()
        sample, (width, height) = work.samples[-1], config.shape
        _check_patch(config, (sample.shape[1], sample.shape[0]))
        with Steps("patches") as steps:
            image = quilting.quilt(
                np.random.default_rng(config.seed),
                sample,
                (height, width),
                patch=config.patch,
                tolerance=config.tolerance,
                tileable=config.tileable,
                progress=steps.show,
            )
        result = loop.Result(np.asarray(image, np.float32), 0, [], "", -1, "")
        picture = work.picture(result)
        interrupt.begin()
        interrupt.finish()  # picture, record and flagfile, or none of them
        chosen = flags.resolved(config)
        weights = {"name": backbone.name, "sha256": backbone.sha256}
        images.save(config.output, picture, report.embedded(chosen, weights))
        report.write_flags(config.output, chosen)
        seconds = time.perf_counter() - begun
        record = report.make_record(
            result,
            flags=chosen,
            inputs={**work.hashes(), "weights": backbone.sha256},
            weights=weights,
            device=f"{device.platform} ({device.device_kind})",
            size=picture.size,
            compile_seconds=0.0,
            run_seconds=seconds,
        )
        report.write_record(config.output, {**record, **work.more(result)})
        say(f"{config.output}: quilted from patches of {config.patch} pixels, {seconds:.1f} s")
    return DONE


def _check_patch(config, sample):
    """Patches are squares of the sample, and a tileable texture holds a whole one."""
    if config.patch > min(sample):
        across, down = sample
        raise InputError(
            f"--patch={config.patch}: expected at most {min(sample)}, as the sample --image={config.image} has "
            f"{across}x{down} pixels"
        )
    if config.tileable and min(config.shape) < config.patch:
        raise InputError(
            f"--size={config.size}: expected at least --patch={config.patch} on each side, with --tileable"
        )
