"""Which training a conv1_1 comes from, in which channel order and orientation, by a few numbers of a few filters.

A row is made of one filter of 3x3 taps and its norm n: (right column - left column) / n, (bottom row - top row) / n,
the sum of each input channel / n, and one number for the scale of the input. The first five do not change where a
channel has been rescaled, and tell a filter from its transpose and its reverse.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["TOLERANCE", "TRAININGS", "Match", "Training", "match", "measure"]


class Training(NamedTuple):
    """What is known of one training's conv1_1: its filters as rows of numbers, in the order of its input channels."""

    order: str
    """Of the input channels: `rgb` or `bgr`."""
    scale: str
    """The sixth number: `bias` / n, which rescaled channels keep but a rescaled input does not, or the `norm` n."""
    rows: dict[int, tuple[float, ...]]
    """By the filter's index."""


class Match(NamedTuple):
    """What a conv1_1 is."""

    training: str
    order: str
    """Of the input channels: `rgb` or `bgr`."""
    transposed: bool
    """Whether the first axis of the kernel is the picture's width."""


TOLERANCE = 0.01
"""Wider than float16 would make it, far narrower than chance: other filters miss some row by tenths."""

TRAININGS = {
    # Simonyan & Zisserman's own filters, for BGR in 0..255; measured on the first layer of their file (CC BY 4.0).
    "oxford": Training(
        order="bgr",
        scale="bias",
        rows={
            1: (-0.8259, 0.0907, 2.1164, 0.6580, -1.7312, 0.1373),
            6: (-3.2585, 2.3035, 0.0765, 0.1331, -0.4001, -0.0199),
            22: (-0.0489, -0.1211, 1.8367, 0.4582, -2.2840, 0.3739),
            26: (-1.8494, 3.5827, -0.0012, -0.0079, 0.0096, 0.2470),
            29: (-0.3490, -0.6065, -2.0907, -0.7681, 1.7715, 0.7549),
            36: (0.0248, 0.0701, 0.6673, 0.5575, -2.8479, 0.6204),
            42: (3.4084, -2.2681, -0.0025, 0.0379, -0.0205, 0.3247),
            45: (2.8809, -2.5288, 0.0130, -0.0095, -0.0078, 0.6003),
        },
    ),
    # Of torchvision's VGG19_Weights.IMAGENET1K_V1, from its first and last filter as PyTorch prints them.
    "torchvision": Training(
        order="rgb",
        scale="norm",
        rows={
            0: (-0.2285, 1.4781, -0.0710, 2.1813, 0.5191, 0.4515),
            63: (0.0261, 0.1934, 0.0066, 0.0104, -0.0026, 2.5881),
        },
    ),
}
"""By name."""


def measure(kernel: np.ndarray, bias: np.ndarray, scale: str) -> np.ndarray:
    """The rows of a conv1_1.

    Args:
        kernel: `[3, 3, 3, out]`: height, width, input channel, filter.
        bias: `[out]`.
        scale: What the sixth number is, see `Training.scale`.

    Returns:
        `[out, 6]` float64.
    """
    kernel = np.asarray(kernel, np.float64)
    norm = np.maximum(np.sqrt((kernel**2).sum((0, 1, 2))), 1e-30)
    right = (kernel[:, 2] - kernel[:, 0]).sum((0, 1)) / norm
    down = (kernel[2] - kernel[0]).sum((0, 1)) / norm
    last = norm if scale == "norm" else np.asarray(bias, np.float64) / norm
    return np.stack([right, down, *(kernel.sum((0, 1)) / norm), last], 1)


def match(kernel: np.ndarray, bias: np.ndarray) -> Match | None:
    """What these filters are, or None: compared with each training in both channel orders and orientations.

    Arguments as in `measure`; NaN never matches.
    """
    for name, training in TRAININGS.items():
        index = list(training.rows)
        if kernel.shape[:3] != (3, 3, 3) or kernel.shape[3] <= max(index):
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            found = measure(kernel[..., index], bias[index], training.scale)
        other = "rgb" if training.order == "bgr" else "bgr"
        for transposed, first_two in ((False, [0, 1]), (True, [1, 0])):
            for order, channels in ((training.order, [2, 3, 4]), (other, [4, 3, 2])):
                rows = found[:, [*first_two, *channels, 5]]
                if (np.abs(rows - np.array(list(training.rows.values()))) < TOLERANCE).all():
                    return Match(name, order, transposed)
    return None
