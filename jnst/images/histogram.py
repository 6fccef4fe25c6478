"""The colors of a sample given to a picture, channel by channel."""

import numpy as np

__all__ = ["match_histogram"]


def match_histogram(image: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """`image` with the distribution of each of `sample`'s channels, the order of its own values kept.

    By ranks: of n pixels, the one with k below it gets the sample's quantile at (k + 1/2) / n, by the inverse of the
    sample's distribution function, so that only values of the sample come out, and each as often as there, but for the
    rounding of counts. Equal pixels are ranked row by row, and so may come out different: nothing else makes the
    distributions equal. Done twice, it changes nothing more.

    It is what Gatys, Ecker & Bethge 2015 (Texture Synthesis, https://arxiv.org/abs/1505.07376) end with; their code
    takes the distributions from 100 bins.

    Args:
        image: `[H, W, 3]`.
        sample: `[h, w, 3]`, of any size.

    Returns:
        `[H, W, 3]`, of the sample's type.

    >>> match_histogram(np.array([[[0.2], [0.9], [0.1]]]), np.array([[[7], [5], [6]]]))[0, :, 0].tolist()
    [6, 7, 5]
    """
    count, values = image.shape[0] * image.shape[1], np.sort(sample.reshape(-1, sample.shape[-1]), 0)
    # Whole numbers, not fractions: at equal sizes, rank k is value k whatever their number.
    quantiles = values[((2 * np.arange(count) + 1) * len(values) - 1) // (2 * count)]
    order = np.argsort(image.reshape(count, -1), 0, kind="stable")
    out = np.empty(quantiles.shape, sample.dtype)
    np.put_along_axis(out, order, quantiles, 0)
    return out.reshape(image.shape)
