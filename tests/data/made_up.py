"""Numbers that every library makes alike: a network and pictures from a hash of integers, in float64 NumPy."""

import numpy as np

WIDTHS = (6, 8, 10, 12, 12)
BLOCKS = (2, 2, 4, 4, 4)
SHAPE = (32, 40)


def numbers(shape, seed):
    """`shape` numbers in [-1, 1), float64: a multiplicative hash of their positions."""
    count = np.arange(int(np.prod(shape)), dtype=np.uint64)
    mixed = (count + np.uint64(seed * 1_000_003 + 1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return (mixed >> np.uint64(11)).astype(np.float64).reshape(shape) / 2**52 - 1


def layers():
    """`{"conv1_1": (kernel [3, 3, in, out], bias [out])}`, for BGR in 0..255 minus the mean; He's scale."""
    found, channels, seed = {}, 3, 1
    for block, (count, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), 1):
        for index in range(1, count + 1):
            scale = np.sqrt(6 / (9 * channels)) / (1.5 if seed == 1 else 1)  # uniform: a deviation of scale / sqrt 3
            found[f"conv{block}_{index}"] = (
                scale * numbers((3, 3, channels, width), seed),
                0.1 * numbers((width,), 100 + seed),
            )
            channels, seed = width, seed + 1
    return found


def picture(seed, height=SHAPE[0], width=SHAPE[1]):
    """`[height, width, 3]` RGB in [0, 1]: waves and some grain."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * (0.2 + 0.1 * c) + y * (0.3 - 0.1 * c) + seed) for c in range(3)]
    return np.clip(0.5 + 0.3 * np.stack(waves, -1) + 0.1 * numbers((height, width, 3), 200 + seed), 0, 1)


def noise():
    """A start around the mean color: `[*SHAPE, 3]` RGB in [0, 1]."""
    mean = np.array([123.68, 116.779, 103.939])
    return (mean + 60 * numbers((*SHAPE, 3), 300)) / 255
