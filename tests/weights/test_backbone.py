import pytest

from jnst import weights
from jnst.errors import InputError


def test_layers_too_deep_name_flag_layer_and_file():
    backbone = weights.random_backbone(0, ["conv1_2"])
    backbone.require("style_layers", ["relu1_1", "conv1_2"])
    with pytest.raises(InputError, match=r"--style_layers: relu2_1 is not in --weights=random:0, .* conv1_2"):
        backbone.require("style_layers", ["relu1_1", "relu2_1"])
