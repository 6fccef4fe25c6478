"""Pix2pix's and CycleGAN's networks and updates in PyTorch, written apart from jnst: for goldens and for speed.

Arrays have jnst's names and layouts: kernels `[k, k, in, out]`, a normalization's as `norm_1/scale`. Nothing is dropped
but by masks that are given.
"""

import numpy as np
import torch
from torch.nn import functional as F

__all__ = ["Cyclegan", "PatchGan", "Pix2pix", "Resnet", "Unet", "join"]

EPSILON = 1e-5


class Network:
    """Tensors by name. `layout` is `contiguous` or `channels_last`."""

    def __init__(self, arrays, *, norm="instance", layout="contiguous", dtype=torch.float32):
        self.norm, self.dtype = norm, dtype
        self.order = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.own = {name: self._tensor(name, array) for name, array in arrays.items()}

    def is_up(self, name):
        """Whether a kernel is of a transposed convolution: those have the inputs first."""
        return False

    def is_mirrored(self, name):
        """Whether its rows and columns run the other way."""
        return False

    def _tensor(self, name, array):
        array = np.array(array)
        if array.ndim == 4:
            array = array[::-1, ::-1] if self.is_mirrored(name) else array
            array = array.transpose(*((2, 3, 0, 1) if self.is_up(name) else (3, 2, 0, 1)))
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.dtype)
        if tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=self.order)
        return tensor.requires_grad_()

    def array(self, name, tensor):
        """A tensor of this name's shape in jnst's layout."""
        array = tensor.detach().contiguous().numpy()
        if array.ndim == 4:
            array = array.transpose(*((2, 3, 0, 1) if self.is_up(name) else (2, 3, 1, 0)))
            array = array[::-1, ::-1] if self.is_mirrored(name) else array
        return array

    def pictures(self, array):
        """Bytes `[N, S, S, 3]` as a tensor in [-1, 1]."""
        tensor = torch.from_numpy(np.array(array)).permute(0, 3, 1, 2).to(self.dtype) / 127.5 - 1
        return tensor.contiguous(memory_format=self.order)

    def normalized(self, x, name):
        scale, shift = self.own[f"{name}/scale"], self.own[f"{name}/shift"]
        if self.norm == "batch":
            return F.batch_norm(x, None, None, scale, shift, True, eps=EPSILON)
        return F.instance_norm(x, None, None, scale, shift, True, eps=EPSILON)


class Unet(Network):
    """Pix2pix's generator; its levels are counted from its kernels."""

    def is_up(self, name):
        return name.startswith("up_")

    def __call__(self, x, masks=None):
        """`[N, 3, H, W]`; `masks`: what is kept after normalization, by level, already divided by its share."""
        own, levels = self.own, sum(name.startswith("down_") for name in self.own)
        skips, sizes = [], []
        for level in range(levels):
            height, width = x.shape[2:]
            sizes.append((height, width))
            x = F.leaky_relu(x, 0.2) if level else x
            if height % 2 or width % 2:
                x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
            x = F.conv2d(x, own[f"down_{level}"], own.get(f"bias_{level}"), stride=2, padding=1)
            if f"norm_down_{level}/scale" in own:
                x = self.normalized(x, f"norm_down_{level}")
            skips.append(x)
        x = skips.pop()
        for level in range(levels - 1, -1, -1):
            height, width = sizes[level]
            bias = None if level else own["bias"]
            x = F.conv_transpose2d(F.relu(x), own[f"up_{level}"], bias, stride=2, padding=1)[:, :, :height, :width]
            if level:
                x = self.normalized(x, f"norm_up_{level}")
                if masks is not None and level in masks:
                    x = x * masks[level]
                x = torch.cat([skips.pop(), x], 1)
        return torch.tanh(x)


class Resnet(Network):
    """CycleGAN's generator, up by `resize` and a convolution or by `transpose`."""

    def __init__(self, arrays, *, upsample="resize", **more):
        self.upsample = upsample
        super().__init__(arrays, **more)

    def is_up(self, name):
        return self.upsample == "transpose" and name.startswith("up_")

    def is_mirrored(self, name):
        return self.is_up(name)  # jnst lays it over the spread map as a convolution's

    def __call__(self, x):
        """`[N, 3, H, W]`."""
        blocks = sum(name.startswith("block_") for name in self.own) // 2
        x, sizes = F.relu(self._layer(x, "first")), []
        for level in (0, 1):
            sizes.append(x.shape[2:])
            x = F.relu(self._layer(x, f"down_{level}", stride=2))
        for block in range(blocks):
            inside = F.relu(self._layer(x, f"block_{block}_0"))
            x = x + self._layer(inside, f"block_{block}_1")
        for level in (1, 0):
            height, width = sizes[level]
            if self.upsample == "transpose":
                x = F.conv_transpose2d(x, self.own[f"up_{level}"], stride=2, padding=1, output_padding=1)
            else:
                x = self._convolved(F.interpolate(x, scale_factor=2, mode="nearest"), f"up_{level}")
            x = F.relu(self.normalized(x[:, :, :height, :width], f"norm_up_{level}"))
        return torch.tanh(self._convolved(x, "last") + self.own["bias"][:, None, None])

    def _convolved(self, x, name, stride=1):
        kernel = self.own[name]
        around = kernel.shape[-1] // 2
        return F.conv2d(F.pad(x, (around,) * 4, mode="reflect"), kernel, stride=stride)

    def _layer(self, x, name, stride=1):
        return self.normalized(self._convolved(x, name, stride), f"norm_{name}")


class PatchGan(Network):
    """The discriminator; how many of its kernels have stride 2 is counted."""

    def __call__(self, x):
        """Logits `[N, h, w]` of `[N, channels, H, W]`."""
        own, count = self.own, sum(name.startswith("layer_") for name in self.own)
        for layer in range(count):
            kernel = own[f"layer_{layer}"]
            stride = 2 if kernel.shape[-1] == 4 and layer < count - 2 else 1
            x = F.conv2d(x, kernel, own.get(f"bias_{layer}"), stride=stride, padding=1 if kernel.shape[-1] == 4 else 0)
            if f"norm_{layer}/scale" in own:
                x = self.normalized(x, f"norm_{layer}")
            x = F.leaky_relu(x, 0.2) if layer < count - 1 else x
        return x[:, 0]


def _split(arrays, prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def join(parts):
    """Dicts by name as one, with a slash between.

    >>> join({"a": {"x": 1}, "b": {"x": 2}})
    {'a/x': 1, 'b/x': 2}
    """
    return {f"{outer}/{name}": value for outer, inner in parts.items() for name, value in inner.items()}


class _Training:
    """Both sides, each some networks by name ("" where it is one alone), and an optimizer of each side."""

    def __init__(self, generators, discriminators, kind, rate, beta1, fused):
        self.sides, self.kind = {"generator": generators, "discriminator": discriminators}, kind
        self.optimizers = {
            side: torch.optim.Adam(self._tensors(side), rate, betas=(beta1, 0.999), fused=fused) for side in self.sides
        }

    def _tensors(self, side):
        return [tensor for network in self.sides[side].values() for tensor in network.own.values()]

    def of_generator(self, fake):
        """What a generator wants less of."""
        if self.kind == "lsgan":
            return F.mse_loss(fake, torch.ones_like(fake))
        return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))

    def of_discriminator(self, real, fake):
        """What a discriminator gets wrong, halved."""
        of = F.mse_loss if self.kind == "lsgan" else F.binary_cross_entropy_with_logits
        return (of(real, torch.ones_like(real)) + of(fake, torch.zeros_like(fake))) / 2

    def right(self, real, fake):
        """The shares of patches that a discriminator is right about."""
        middle = 0.5 if self.kind == "lsgan" else 0.0
        return (real > middle).double().mean(), (fake <= middle).double().mean()

    def step(self, generator, discriminator):
        """Updates both at once, each by its own loss, and computes of each what its own networks need."""
        losses = {"generator": generator, "discriminator": discriminator}
        found = {
            side: torch.autograd.grad(loss, self._tensors(side), retain_graph=side == "generator")
            for side, loss in losses.items()
        }
        for side, gradients in found.items():
            for tensor, gradient in zip(self._tensors(side), gradients, strict=True):
                tensor.grad = gradient
            self.optimizers[side].step()

    def arrays(self):
        """Parameters and Adam's two moments by name, in jnst's layouts."""
        found = {}
        for side, networks in self.sides.items():
            for outer, network in networks.items():
                for name, tensor in network.own.items():
                    state = self.optimizers[side].state[tensor]
                    path = "/".join(part for part in (side, outer, name) if part)
                    for kind, value in (("params", tensor), ("mu", state["exp_avg"]), ("nu", state["exp_avg_sq"])):
                        found[f"{kind}/{path}"] = network.array(name, value)
        return found


class Pix2pix(_Training):
    """`arrays`: parameters as `generator/up_0`, `discriminator/layer_0`."""

    def __init__(self, arrays, *, kind="bce", l1_weight=100.0, rate=2e-4, beta1=0.5, fused=False, **more):
        self.net = Unet(_split(arrays, "generator/"), **more)
        self.judge = PatchGan(_split(arrays, "discriminator/"), **more)
        self.l1_weight = l1_weight
        super().__init__({"": self.net}, {"": self.judge}, kind, rate, beta1, fused)

    def update(self, given, target):
        """One update from bytes `[N, S, S, 3]`: losses of both, l1, and the two accuracies, before it."""
        given, target = self.net.pictures(given), self.net.pictures(target)
        made = self.net(given)
        real, fake = (self.judge(torch.cat([given, each], 1)) for each in (target, made))
        apart = (made - target).abs().mean()
        generator = self.of_generator(fake) + self.l1_weight * apart
        discriminator = self.of_discriminator(real, fake)
        self.step(generator, discriminator)
        return tuple(value.item() for value in (generator, discriminator, apart, *self.right(real, fake)))


class Cyclegan(_Training):
    """`arrays`: parameters as `generator/AtoB/first`, `discriminator/A/layer_0`; `pool`: places, 0: none."""

    def __init__(
        self,
        arrays,
        *,
        kind="lsgan",
        cycle_weight=10.0,
        identity_weight=0.5,
        pool=0,
        upsample="resize",
        rate=2e-4,
        beta1=0.5,
        fused=False,
        together=False,
        **more,
    ):
        generators = {
            way: Resnet(_split(arrays, f"generator/{way}/"), upsample=upsample, **more) for way in ("AtoB", "BtoA")
        }
        judges = {name: PatchGan(_split(arrays, f"discriminator/{name}/"), **more) for name in "AB"}
        self.cycle_weight, self.identity_weight, self.together = cycle_weight, identity_weight, together
        self.places, self.pools = pool, {"A": [], "B": []}
        super().__init__(generators, judges, kind, rate, beta1, fused)

    def _pooled(self, name, made, draws):
        """What the discriminator is shown; `draws`: for each picture whether it is exchanged, and for which."""
        pool, shown = self.pools[name], []
        for image, (exchanged, place) in zip(made.detach(), draws, strict=True):
            if len(pool) < self.places:
                pool.append(image)
                shown.append(image)
            elif exchanged:
                shown.append(pool[place])
                pool[place] = image
            else:
                shown.append(image)
        return torch.stack(shown).contiguous(memory_format=self.sides["generator"]["AtoB"].order)

    def update(self, a, b, draws):
        """One update from bytes `[N, S, S, 3]` of both kinds: losses of both sides, cycle, identity and the two
        accuracies, before it. `draws`: by kind, see `_pooled`."""
        to_b, to_a = self.sides["generator"].values()
        judges = self.sides["discriminator"]
        real = {"A": to_b.pictures(a), "B": to_b.pictures(b)}
        if self.together:  # both of a network's pictures as one batch, as jnst has them
            made_b, same_b = to_b(torch.cat([real["A"], real["B"]])).chunk(2)
            made_a, same_a = to_a(torch.cat([real["B"], real["A"]])).chunk(2)
        else:
            made_b, same_b, made_a, same_a = to_b(real["A"]), to_b(real["B"]), to_a(real["B"]), to_a(real["A"])
        made, same = {"A": made_a, "B": made_b}, {"A": same_a, "B": same_b}
        back = {"A": to_a(made["B"]), "B": to_b(made["A"])}
        fake = {name: judges[name](made[name]) for name in "AB"}
        seen = {
            name: judges[name](self._pooled(name, made[name], draws[name])) if self.places else fake[name]
            for name in "AB"
        }
        said = {name: judges[name](real[name]) for name in "AB"}
        cycle = sum((back[name] - real[name]).abs().mean() for name in "AB")
        identity = sum((same[name] - real[name]).abs().mean() for name in "AB")
        generator = sum(self.of_generator(fake[name]) for name in "AB")
        generator = generator + self.cycle_weight * cycle + self.cycle_weight * self.identity_weight * identity
        discriminator = sum(self.of_discriminator(said[name], seen[name]) for name in "AB")
        right = [sum(shares) / 2 for shares in zip(*(self.right(said[name], seen[name]) for name in "AB"), strict=True)]
        self.step(generator, discriminator)
        return tuple(value.item() for value in (generator, discriminator, cycle, identity, *right))
