"""Goldens of the pipeline of style-transfer-pytorch: every step's loss and the picture, by PyTorch in float64.

Run it where there are torch and Pillow: python tests/data/make_style_transfer_pytorch.py. It writes
style_transfer_pytorch.json beside itself. The formulas are those of crowsonkb's program, written here for this purpose.
"""

import base64
import json
from pathlib import Path

import made_up
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

torch.set_default_dtype(torch.float64)

START, END, STEPS = 32, 64, (8, 5, 5)
CONTENT, CONTENT_WEIGHT, TV_WEIGHT, MIX = "relu4_2", 0.015, 2.0, (0.3, 0.7)
STYLES = {f"relu{block}_1": 4 ** (5 - block) / 341 for block in range(1, 6)}
RATE, BETAS, DECAY = 0.02, (0.9, 0.99), 0.99
INPUT_SCALE = 60  # conv1_1 was made for 0..255, whose deviation is about that
MEAN, STD = (torch.tensor(row).reshape(1, 3, 1, 1) for row in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def network():
    found = {
        name: (torch.tensor(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))), torch.tensor(bias))
        for name, (kernel, bias) in made_up.layers().items()
    }
    kernel, bias = found["conv1_1"]
    return found | {"conv1_1": (INPUT_SCALE * kernel, bias)}


def features(x, layers):
    x, found = (x - MEAN) / STD, {}
    for name, (kernel, bias) in layers.items():
        if name == "conv1_1":
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, bias)
        else:
            x = F.conv2d(F.max_pool2d(x, 2) if name.endswith("_1") else x, kernel, bias, padding=1)
        x = F.relu(x)
        found["relu" + name[4:]] = x
    return found


class Root(torch.autograd.Function):
    """The square root of a matrix by Newton and Schulz; its gradient solves the Lyapunov equation of the result."""

    @staticmethod
    def forward(ctx, matrix):
        eye, norm = torch.eye(len(matrix)), matrix.square().sum().sqrt()
        y, z = matrix / norm, eye
        for _ in range(12):
            t = (3 * eye - z @ y) / 2
            y, z = y @ t, t @ z
        root = y * norm.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx, grad):
        (root,) = ctx.saved_tensors
        eye, norm = torch.eye(len(root)), root.square().sum().sqrt()
        a, q = root / norm, grad / norm
        for _ in range(12):
            e = 3 * eye - a @ a
            q = (q @ e - a.T @ (a.T @ q - q @ a)) / 2
            a = a @ e / 2
        return q / 2


def moments(x):
    """The mean `[c]` and the second raw moment `[c, c]` over the pixels of `[1, c, h, w]`."""
    flat = x[0].flatten(1)
    return flat.mean(1), flat @ flat.T / flat.shape[1]


def covariance(mean, moment):
    return moment - torch.outer(mean, mean) + 1e-4 * torch.eye(len(mean))


def style_loss(x, target):
    """Of the squared 2-Wasserstein distance between two Gaussians, the mean over channels."""
    (mean, moment), (mean0, moment0) = moments(x), target
    now, then = covariance(mean, moment), covariance(mean0, moment0)
    root = Root.apply(then)
    return (mean - mean0).square().mean() + (now + then - 2 * Root.apply(root @ now @ root)).diagonal().mean()


def tv_loss(x):
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    middle = p[..., 1:-1, 1:-1]
    straight = (p[..., 1:-1, 2:] - middle, p[..., 2:, 1:-1] - middle)
    diagonal = (p[..., 1:, 1:] - p[..., :-1, :-1], p[..., 1:, :-1] - p[..., :-1, 1:])
    return 2 * (sum(d.square().mean() / 3 for d in straight) + sum(d.square().mean() / 12 for d in diagonal))


def photo(*args):
    return Image.fromarray(np.floor(made_up.picture(*args) * 255).astype(np.uint8))


def fit(image, scale, enlarge):
    """`[1, 3, h, w]` in [0, 1], the longest side `scale`, resized in 8 bits."""
    size = image.size
    if enlarge or max(size) > scale:
        size = tuple(scale if side == max(size) else round(scale * side / max(size)) for side in size)
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    return torch.tensor(np.ascontiguousarray(pixels)[None] / 255)


def scales():
    found, size = [], END
    while size >= START:
        found.insert(0, size)
        size = round(END / 2 ** (len(found) / 2))
    return found


def pipeline(warm=True):
    """Sizes, losses by scale, and the last average before it is made 8 bits."""
    layers, content = network(), photo(1, 90, 120)
    styles = photo(2, 70, 60), photo(3, 40, 60)  # the last scale would enlarge the second one
    sizes, losses, image, old = [], [], None, None
    for scale, steps in zip(scales(), STEPS, strict=True):
        picture = fit(content, scale, enlarge=True)
        shape = picture.shape[-2:]
        wanted = features(picture, layers)[CONTENT]
        found = [features(fit(style, scale, enlarge=False), layers) for style in styles]
        targets = {
            name: [
                sum(share * part for share, part in zip(MIX, parts, strict=True))
                for parts in zip(*(moments(style[name]) for style in found), strict=True)
            ]
            for name in STYLES
        }
        image = F.interpolate(picture if image is None else image, shape, mode="bicubic").clamp(0, 1)
        value, accum = (1 - DECAY) * image, DECAY
        image.requires_grad_(True)
        optimizer = torch.optim.Adam([image], lr=RATE, betas=BETAS, eps=1e-8)
        if warm and old:  # the count of steps stays
            optimizer.state[image] = {
                "step": old["step"],
                "exp_avg": F.interpolate(old["exp_avg"], shape, mode="bicubic"),
                "exp_avg_sq": F.interpolate(old["exp_avg_sq"], shape, mode="bilinear").relu(),
            }
        sizes.append([shape[1], shape[0]])
        losses.append([])
        for _ in range(steps):
            optimizer.zero_grad()
            now = features(image, layers)
            total = CONTENT_WEIGHT * F.mse_loss(now[CONTENT], wanted) + TV_WEIGHT * tv_loss(image)
            for name, weight in STYLES.items():
                total = total + weight * style_loss(now[name], targets[name])
            total.backward()
            losses[-1].append(float(total.detach()))
            optimizer.step()
            with torch.no_grad():
                image.clamp_(0, 1)
                accum *= DECAY
                value = DECAY * value + (1 - DECAY) * image
        image, old = value / (1 - accum), optimizer.state[image]
    return sizes, losses, image[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255


if __name__ == "__main__":
    sizes, losses, last = pipeline()
    picture = last.astype(np.uint8)
    golden = {
        "torch": torch.__version__.split("+")[0],
        "sizes": sizes,
        "losses": losses,
        "picture": base64.b64encode(picture.tobytes()).decode(),
        "shape": picture.shape,
    }
    Path(__file__).with_name("style_transfer_pytorch.json").write_text(json.dumps(golden, indent=1) + "\n")
    _, cold_losses, cold = pipeline(warm=False)
    print("sizes", sizes, "losses", [[round(loss, 4) for loss in row] for row in losses])
    print("fall in each scale:", all(a > b for row in losses for a, b in zip(row, row[1:], strict=False)))
    for name, other in (("rounded", np.rint(last)), ("without warm start", cold)):
        differing = picture != other.astype(np.uint8)
        print(f"{name}: {differing.sum()} of {picture.size} values differ")
    print("without warm start, losses:", [[round(loss, 4) for loss in row] for row in cold_losses])
    print("least distance to a whole number:", np.abs(last - np.rint(last)).min())
