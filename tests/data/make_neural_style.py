"""Goldens of the preset `neural_style`: the losses of its first 20 evaluations, computed by PyTorch in float64.

Run it where there is torch: python tests/data/make_neural_style.py. It writes neural_style.json beside itself.
The formulas are those of neural-style's PyTorch port (see presets/neural_style.flags), written here for this purpose.
"""

import itertools
import json
from pathlib import Path

import made_up
import numpy as np
import torch
import torch.nn.functional as F

EVALUATIONS = 20
STYLES = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
CONTENT, MIX = "relu4_2", (0.3, 0.7)
CONTENT_WEIGHT, STYLE_WEIGHT, TV_WEIGHT = 5.0, 100.0, 1e-3
MEAN_BGR = np.array([103.939, 116.779, 123.68])


def tensor(image):
    """RGB in [0, 1], `[h, w, 3]` -> BGR in 0..255 minus the mean, `[1, 3, h, w]`."""
    bgr = image[..., ::-1] * 255 - MEAN_BGR
    return torch.tensor(np.ascontiguousarray(bgr.transpose(2, 0, 1))[None])


def features(x, network, pooling):
    pool = F.max_pool2d if pooling == "max" else F.avg_pool2d
    found = {}
    for name, (kernel, bias) in network.items():
        if name.endswith("_1") and name != "conv1_1":
            x = pool(x, 2)
        x = F.relu(F.conv2d(x, kernel, bias, padding=1))
        found["relu" + name[4:]] = x
    return found


def gram(x):
    _, channels, height, width = x.shape
    flat = x.reshape(channels, height * width)
    return flat @ flat.T / (channels * height * width)


def losses(start, pooling):
    network = {
        name: (torch.tensor(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))), torch.tensor(bias))
        for name, (kernel, bias) in made_up.layers().items()
    }
    content = features(tensor(made_up.picture(1)), network, pooling)[CONTENT]
    styles = [
        features(tensor(made_up.picture(seed, *shape)), network, pooling)
        for seed, shape in ((2, (36, 32)), (3, (32, 48)))
    ]
    targets = {
        name: sum(share * gram(style[name]) for share, style in zip(MIX, styles, strict=True)) for name in STYLES
    }
    x = tensor(made_up.noise() if start == "noise" else made_up.picture(1)).requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [x], max_iter=EVALUATIONS, max_eval=1000, tolerance_grad=-1, tolerance_change=-1, history_size=100
    )
    found = []

    def closure():
        optimizer.zero_grad()
        now = features(x, network, pooling)
        total = CONTENT_WEIGHT * F.mse_loss(now[CONTENT], content)
        for name in STYLES:
            total = total + STYLE_WEIGHT * F.mse_loss(gram(now[name]), targets[name])
        total = total + TV_WEIGHT * ((x[:, :, 1:] - x[:, :, :-1]).abs().sum() + (x[..., 1:] - x[..., :-1]).abs().sum())
        total.backward()
        found.append(float(total.detach()))
        return total

    optimizer.step(closure)
    return found


if __name__ == "__main__":
    goldens = {
        f"{start} {pooling}": losses(start, pooling)
        for start, pooling in itertools.product(("noise", "content"), ("max", "avg"))
    }
    text = json.dumps({"torch": torch.__version__.split("+")[0], "losses": goldens}, indent=1)
    Path(__file__).with_name("neural_style.json").write_text(text + "\n")
