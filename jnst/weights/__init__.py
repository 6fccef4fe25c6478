"""Backbones: weight files of every common kind, random filters, checked downloads. Host only: numpy, no jax.

`load` is the door: what `--weights` names in, a `Backbone` out. One module reads each kind of file; `convert` brings
what they read under one input rule; `canonical` is jnst's own file.
"""

from jnst.weights.backbone import Backbone
from jnst.weights.canonical import save_safetensors
from jnst.weights.fetch import Progress
from jnst.weights.filters import random_backbone
from jnst.weights.loading import find, is_word, load, read

__all__ = ["Backbone", "Progress", "find", "is_word", "load", "random_backbone", "read", "save_safetensors"]
