"""The conventions for turning squared differences into terms: one table, read by code, flags and messages alike."""

import dataclasses
from collections.abc import Callable, Mapping

__all__ = ["EPSILON", "NORMALIZATIONS", "Normalization"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalization:
    """How squared differences become terms. `h`, `w`, `c` are the feature map's.

    content: `content(h, w, c) * sum((F - P)^2)`; Gram matrix: `G = gram(h, w, c) * F^T F`;
    style: `style(c) * sum((G - T)^2)` per layer, or the Wasserstein distance per channel as it is; total variation:
    `tv(h, w, c)` times a sum over pixels times `tv_unit`. Where `relative`, content and style are divided by the
    target's own size (its sum of squares, or moments per channel) plus `EPSILON` instead.
    """

    source: str
    gram: Callable[[int, int, int], float]
    content: Callable[[int, int, int], float] = lambda h, w, c: 1.0
    style: Callable[[int], float] = lambda c: 1.0
    tv: Callable[[int, int, int], float] = lambda h, w, c: 1.0
    tv_unit: float = 255.0
    relative: bool = False


EPSILON = 1e-6
"""Added to the divisor of `relative`: a target of zeros (a picture of one gray) still gives a finite loss."""

# Departure, in all but neural_style: papers divide by the generated image's h*w what was summed over the style
# image, and so assume that both have one size. Here each Gram matrix is divided by its own picture's h*w: the
# same number at equal sizes, and the right one at different sizes.
NORMALIZATIONS: Mapping[str, Normalization] = {
    "relative": Normalization(
        source="ours: content sum (F-P)^2 / (sum P^2 + 1e-6); style sum (G-T)^2 / (sum T^2 + 1e-6), G = F^T F / (h w); "
        "total variation per pixel. Weights mean the same at every size, layer and backbone",
        gram=lambda h, w, c: 1 / (h * w),
        tv=lambda h, w, c: 1 / (h * w),
        tv_unit=1.0,
        relative=True,
    ),
    "course": Normalization(
        source="deeplearning.ai's style transfer notebook: content sum (F-P)^2 / (4 h w c); "
        "style sum (G-T)^2 / (4 c^2 (h w)^2), G = F^T F",
        gram=lambda h, w, c: 1 / (h * w),
        content=lambda h, w, c: 1 / (4 * h * w * c),
        style=lambda c: 1 / (4 * c**2),
    ),
    "gatys": Normalization(
        source="Gatys, Ecker & Bethge 2016, eqs. 1, 4: content sum (F-P)^2 / 2; style sum (G-T)^2 / (4 c^2 (h w)^2), "
        "G = F^T F",
        gram=lambda h, w, c: 1 / (h * w),
        content=lambda h, w, c: 1 / 2,
        style=lambda c: 1 / (4 * c**2),
    ),
    "neural_style": Normalization(
        source="jcjohnson/neural-style and its PyTorch port: means of (F-P)^2 and of (G-T)^2 over their elements, "
        "G = F^T F / (c h w)",
        gram=lambda h, w, c: 1 / (c * h * w),
        content=lambda h, w, c: 1 / (h * w * c),
        style=lambda c: 1 / c**2,
    ),
    "style_transfer_pytorch": Normalization(
        source="crowsonkb/style-transfer-pytorch: means over elements, of pixels in [0, 1]; G = F^T F / (h w)",
        gram=lambda h, w, c: 1 / (h * w),
        content=lambda h, w, c: 1 / (h * w * c),
        style=lambda c: 1 / c**2,
        tv=lambda h, w, c: 1 / (h * w * c),
        tv_unit=1.0,
    ),
}
