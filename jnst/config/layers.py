"""The names of layers, by depth, and what follows from a name."""

from jnst.config.choices import BLOCKS, CONVOLUTIONS

__all__ = ["LAYERS", "convolution_of", "halvings_of"]


def _facts():
    """By layer, in the order of the network: the last convolution that it needs, and the poolings on the way."""
    found = {}
    for name in CONVOLUTIONS:
        block, index = int(name[4]), int(name[6])
        found[name] = found["relu" + name[4:]] = name, block - 1
        if index == BLOCKS[block - 1] and block < len(BLOCKS):
            found[f"pool{block}"] = name, block
    return found


_FACTS = _facts()

LAYERS = tuple(_FACTS)
"""All that can be asked for, in order: `convB_I` (before the rectifier), `reluB_I` (after it), and `poolB` (what
follows block B: the input of the next block's first convolution)."""


def convolution_of(layer: str) -> str:
    """The last convolution that a layer needs.

    >>> convolution_of("relu4_2"), convolution_of("pool3")
    ('conv4_2', 'conv3_4')
    """
    return _FACTS[layer][0]


def halvings_of(layer: str) -> int:
    """Poolings on the way to a layer: from one of its features to the next there are `2**halvings_of(layer)` pixels.

    >>> halvings_of("relu3_4"), halvings_of("pool3")
    (2, 3)
    """
    return _FACTS[layer][1]
