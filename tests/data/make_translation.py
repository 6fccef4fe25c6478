"""Makes translation.npz: pix2pix's and CycleGAN's networks and two updates of each by an independent implementation, in
PyTorch, float64.

.venv-bench/bin/python -P tests/data/make_translation.py

The implementation is benchmarks/translation_peers.py. First weights and pictures are in the file, too; what chance
decides (what the image pools exchange, what is dropped) is what jnst draws from key 0. Of large results the file has
every `STRIDE`th number; parameters are one array, in their names' order.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import translation_peers as peers  # noqa: E402
from benchmarks.translation_peers import torch  # noqa: E402

SIDE, LEVELS, WIDTH, BLOCKS, PLACES, UPDATES, BATCH, SEED = 32, 5, 2, 1, 2, 2, 2, 1
ODD = {"unet": (37, 50), "resnet": (30, 21)}
STRIDE, LARGE = 11, 300


class Drawn:
    """First numbers, exact in float16."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def kernel(self, side, inputs, outputs, products=1.0):
        """`products`: the share of the kernel that a pixel sees."""
        spread = np.sqrt(2 / (products * side * side * inputs))
        return (spread * self.rng.standard_normal((side, side, inputs, outputs))).astype(np.float16)

    def bias(self, width):
        return (0.2 * self.rng.standard_normal(width)).astype(np.float16)

    def norm(self, name, width):
        return {f"{name}/scale": 1 + self.bias(width), f"{name}/shift": self.bias(width)}


def unet(drawn):
    """Of a U-Net, by name."""
    widths = [WIDTH * min(2**level, 8) for level in range(LEVELS)]
    found = {"bias": drawn.bias(3)}
    for level, width in enumerate(widths):
        found[f"down_{level}"] = drawn.kernel(4, widths[level - 1] if level else 3, width)
        if 0 < level < LEVELS - 1:
            found |= drawn.norm(f"norm_down_{level}", width)
        else:
            found[f"bias_{level}"] = drawn.bias(width)
        above = widths[level - 1] if level else 3
        found[f"up_{level}"] = drawn.kernel(4, width * (1 if level == LEVELS - 1 else 2), above, 0.25)
        if level:
            found |= drawn.norm(f"norm_up_{level}", above)
    return found


def resnet(drawn):
    """Of a ResNet, by name."""
    found = {"first": drawn.kernel(7, 3, WIDTH), "last": drawn.kernel(7, WIDTH, 3), "bias": drawn.bias(3)}
    found |= drawn.norm("norm_first", WIDTH)
    for level in (0, 1):
        narrow, wide = WIDTH * 2**level, WIDTH * 2 ** (level + 1)
        found |= {f"down_{level}": drawn.kernel(3, narrow, wide), f"up_{level}": drawn.kernel(3, wide, narrow)}
        found |= drawn.norm(f"norm_down_{level}", wide) | drawn.norm(f"norm_up_{level}", narrow)
    for name in (f"block_{block}_{half}" for block in range(BLOCKS) for half in (0, 1)):
        found |= {name: drawn.kernel(3, 4 * WIDTH, 4 * WIDTH), **drawn.norm(f"norm_{name}", 4 * WIDTH)}
    return found


def patchgan(drawn, layers, channels):
    """Of a PatchGAN with so many strided layers, by name."""
    widths = [channels, *(WIDTH * min(2**level, 8) for level in range(layers + 1 if layers else 2)), 1]
    found = {}
    for layer, (before, width) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        found[f"layer_{layer}"] = drawn.kernel(4 if layers else 1, before, width)
        if 0 < layer < len(widths) - 2:
            found |= drawn.norm(f"norm_{layer}", width)
        else:
            found[f"bias_{layer}"] = drawn.bias(width)
    return found


def pictures(count):
    """Patches of flat color with a little noise, which the file keeps small: `[count, S, S, 3]` bytes."""
    rng = np.random.default_rng(2)
    patches = rng.integers(16, 240, (count, SIDE // 4, SIDE // 4, 3)).repeat(4, 1).repeat(4, 2)
    return (patches + 12 * rng.integers(0, 2, patches.shape)).astype(np.uint8)


def enlarged(picture, height, width):
    """A picture beside and below itself, cut: `[1, height, width, 3]`."""
    return np.tile(picture, (2, 2, 1))[None, :height, :width]


def exchanges(jax):
    """Of each update and kind: of each picture whether it is exchanged, and for which."""

    def of_picture(key):
        chance, place = jax.random.split(key)
        return bool(jax.random.bernoulli(chance)), int(jax.random.randint(place, (), 0, PLACES))

    found = []
    for step in range(UPDATES):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), np.uint32(SEED)), step)
        keys = [jax.random.split(jax.random.fold_in(key, number), BATCH) for number in (0, 1)]
        found.append({name: [of_picture(key) for key in own] for name, own in zip("AB", keys, strict=True)})
    return found


def masks(jax, count):
    """By level, of a U-Net that drops half by key 0: 2 or 0, `[count, C, h, w]`."""
    found = {}
    for level in (4, 3, 2):
        shape = (SIDE // 2**level, SIDE // 2**level, WIDTH * 2 ** (level - 1))
        keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(0), number), level) for number in range(count)]
        kept = np.stack([np.asarray(jax.random.bits(key, shape, np.uint8)) >= 128 for key in keys])
        found[level] = torch.from_numpy(2.0 * kept.transpose(0, 3, 1, 2))
    return found


def looked(network, images, **more):
    """What a network says of bytes, in jnst's layout."""
    said = network(network.pictures(images), **more).detach()
    return (said.permute(0, 2, 3, 1) if said.ndim == 4 else said).numpy()


def few(array):
    """Every `STRIDE`th number of a large array."""
    array = np.asarray(array, np.float32)
    return array.ravel()[::STRIDE] if array.size > LARGE else array


def packed(arrays, few=few):
    """Arrays as one, in their names' order: each for itself would be larger by its header."""
    return np.concatenate([few(arrays[name]).ravel() for name in sorted(arrays)])


def _within(arrays, prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _moments(training):
    arrays = training.arrays()
    return {kind: packed(_within(arrays, f"{kind}/")) for kind in ("params", "mu", "nu")}


def main():
    import jax

    start = {
        "pix2pix": peers.join({"generator": unet(Drawn(0)), "discriminator": patchgan(Drawn(1), 1, 6)}),
        "cyclegan": peers.join(
            {
                "generator": peers.join({way: resnet(Drawn(seed)) for seed, way in enumerate(("AtoB", "BtoA"), 2)}),
                "discriminator": peers.join({name: patchgan(Drawn(seed), 1, 3) for seed, name in enumerate("AB", 4)}),
            }
        ),
        "patchgan": peers.join({str(layers): patchgan(Drawn(6), layers, 3) for layers in (0, 3)}),
    }
    images = pictures(8)
    double = {"dtype": torch.float64}
    own = {
        "unet": _within(start["pix2pix"], "generator/"),
        "resnet": _within(start["cyclegan"], "generator/AtoB/"),
    }
    found = {}
    for norm in ("instance", "batch"):
        found[f"unet/{norm}"] = looked(peers.Unet(own["unet"], norm=norm, **double), images[:2])
        found[f"resnet/{norm}"] = looked(peers.Resnet(own["resnet"], norm=norm, **double), images[:2])
        for layers in ("0", "3"):
            arrays = _within(start["patchgan"], f"{layers}/")
            found[f"patchgan/{layers}/{norm}"] = looked(peers.PatchGan(arrays, norm=norm, **double), images[:2])
    found["unet/odd"] = looked(peers.Unet(own["unet"], **double), enlarged(images[0], *ODD["unet"]))
    found["unet/dropped"] = looked(peers.Unet(own["unet"], **double), images[:2], masks=masks(jax, 2))
    found["resnet/odd"] = looked(peers.Resnet(own["resnet"], **double), enlarged(images[0], *ODD["resnet"]))
    found["resnet/transpose"] = looked(peers.Resnet(own["resnet"], upsample="transpose", **double), images[:2])

    for norm, count in (("instance", 1), ("batch", 4)):
        training = peers.Pix2pix(start["pix2pix"], norm=norm, **double)
        # In the second step the pairs are mirrored.
        terms = [training.update(each[:count], each[4 : 4 + count]) for each in (images, images[:, :, ::-1])]
        found |= peers.join({f"pix2pix/{norm}": {"terms": np.array(terms), **_moments(training)}})
    draws = exchanges(jax)
    for name, (norm, upsample) in {"cyclegan": ("instance", "resize"), "other": ("batch", "transpose")}.items():
        training = peers.Cyclegan(start["cyclegan"], norm=norm, upsample=upsample, pool=PLACES, **double)
        steps = zip((images, images[:, :, ::-1]), draws, strict=True)
        terms = [training.update(each[:BATCH], each[4 : 4 + BATCH], drawn) for each, drawn in steps]
        found |= peers.join({name: {"terms": np.array(terms)}})
        if name == "cyclegan":
            shown = {f"pool/{kind}": torch.stack(pool).permute(0, 2, 3, 1) for kind, pool in training.pools.items()}
            found |= peers.join({name: {**shown, **_moments(training)}})
    print("exchanged:", draws)
    own = ("terms", "params", "mu", "nu")
    found = {name: each if name.endswith(own) else few(each) for name, each in found.items()}
    found |= {"pictures": images, "stride": np.array([STRIDE, LARGE])}
    found |= {f"start/{name}": packed(each, few=lambda array: array) for name, each in start.items()}
    np.savez_compressed(Path(__file__).with_name("translation.npz"), **found)


if __name__ == "__main__":
    main()
