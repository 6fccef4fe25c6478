"""What jnst computes, written again in numpy float64 from the papers' formulas: slow, and nothing to do with jnst."""

import numpy as np

# Simonyan & Zisserman 2015, configuration E.
LAYERS = (
    "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv3_4 "
    "conv4_1 conv4_2 conv4_3 conv4_4 conv5_1 conv5_2 conv5_3 conv5_4"
).split()


def random_params(widths, seed, bias=0.3):
    """A network whose activations neither vanish nor explode; `mean` differs from channel to channel."""
    rng = np.random.default_rng(seed)
    params = {"mean": np.array([0.5, 0.45, 0.4], np.float32)}
    channels = 3
    for name in LAYERS:
        width = widths[int(name[4]) - 1]
        gain = (4 if name == "conv1_1" else 1) * np.sqrt(2 / (9 * channels))
        params[name] = {
            "kernel": (gain * rng.standard_normal((3, 3, channels, width))).astype(np.float32),
            "bias": (bias * rng.standard_normal(width)).astype(np.float32),
        }
        channels = width
    return params


def smooth_picture(height, width, seed):
    """Waves of color: `[height, width, 3]` float32 in [0.1, 0.9], no two neighbors alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 8
    phase = rng.uniform(0, 6, (3, 3))
    waves = [np.sin(2 * x + a) + np.sin(1.5 * y + b) + 0.5 * np.sin(x * y + c) for a, b, c in phase]
    return (0.5 + 0.16 * np.stack(waves, -1)).astype(np.float32)


def conv3x3(x, kernel, bias, padding):
    h, w, _ = x.shape
    out = np.zeros((h, w, kernel.shape[-1])) + bias
    for i in range(3):
        rows = _lookup(h, i - 1, padding)
        for j in range(3):
            columns = _lookup(w, j - 1, padding)
            for y, row in rows:
                at = [place for place, _ in columns]
                out[y, at] += x[row, [column for _, column in columns]] @ kernel[i, j]
    return out


def _lookup(size, shift, padding):
    """Pairs of a place and the index that stands `shift` beside it, without those that meet a zero."""
    pairs = [(place, _beyond(place + shift, size, padding)) for place in range(size)]
    return [pair for pair in pairs if pair[1] is not None]


def _beyond(index, size, padding):
    """The index that stands for one beyond the border; None for a zero."""
    if 0 <= index < size:
        return index
    if padding == "zeros":
        return None
    if padding == "replicate":
        return 0 if index < 0 else size - 1
    assert padding == "reflect"
    if size < 2:
        raise ValueError("nothing to reflect")
    return -index if index < 0 else 2 * (size - 1) - index


def pool(x, kind):
    h, w, c = x.shape
    out = np.zeros((h // 2, w // 2, c))
    for row in range(h // 2):
        for column in range(w // 2):
            cell = x[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(4, c)
            if kind == "max":
                out[row, column] = cell.max(0)
            elif kind == "avg":
                out[row, column] = cell.sum(0) / 4
            else:
                out[row, column] = np.sqrt((cell**2).sum(0) / 4)
    return out


def features(params, image, layers, pooling, padding):
    found = {}
    x = np.asarray(image, np.float64) - np.asarray(params["mean"], np.float64)
    for name in LAYERS:
        if not set(layers) - set(found):
            break
        if name in ("conv2_1", "conv3_1", "conv4_1", "conv5_1"):
            x = pool(x, pooling)
        if 0 in x.shape:
            raise ValueError("no pixel left")
        kernel, bias = (np.asarray(params[name][part], np.float64) for part in ("kernel", "bias"))
        x = conv3x3(x, kernel, bias, padding)
        found[name] = x
        x = found[name.replace("conv", "relu")] = np.maximum(x, 0)
    return {layer: found[layer] for layer in layers}


def raw_gram(f):
    """F^T F, `[c, c]`."""
    c = f.shape[-1]
    return np.array([[np.sum(f[..., i] * f[..., j]) for j in range(c)] for i in range(c)])


def content_loss(f, p, normalization):
    h, w, c = p.shape
    total = np.sum((f - p) ** 2)
    return {
        "relative": total / (np.sum(p**2) + 1e-6),
        "course": total / (4 * h * w * c),
        "gatys": total / 2,
        "neural_style": total / (h * w * c),
    }[normalization]


def gram(f, normalization):
    """The Gram matrix over its own picture's number of pixels, and of channels in neural_style."""
    h, w, c = f.shape
    return raw_gram(f) / (h * w * c if normalization == "neural_style" else h * w)


def style_loss(g, t, normalization):
    """From matrices that are divided by h w (or c h w) already."""
    c = g.shape[-1]
    total = np.sum((g - t) ** 2)
    return {
        "relative": total / (np.sum(t**2) + 1e-6),
        "course": total / (4 * c**2),
        "gatys": total / (4 * c**2),
        "neural_style": total / c**2,
    }[normalization]


def total_variation(image, kind):
    total, image = 0.0, np.asarray(image, np.float64)
    h, w, _ = image.shape
    for row in range(h):
        for column in range(w):
            for other in ((row + 1, column), (row, column + 1)):
                if other[0] < h and other[1] < w:
                    difference = image[other] - image[row, column]
                    total += np.sum(np.abs(difference) if kind == "l1" else difference**2)
    return total


def tv_loss(image, kind, normalization):
    if normalization == "relative":
        return total_variation(image, kind) / (image.shape[0] * image.shape[1])
    return total_variation(255 * np.asarray(image, np.float64), kind)


def objective(params, image, content, styles, mix, weights, spec):
    """The weighted terms of an image; `weights` has `jnst.types.Weights`' fields, `spec` `ObjectiveSpec`'s."""
    both = [*spec.content_layers, *spec.style_layers]

    def run(picture):
        return features(params, picture, both, spec.pooling, spec.padding)

    found, aim, seen = run(image), run(content), [run(style) for style in styles]
    kind = spec.normalization
    terms = {"content": 0.0, "style": 0.0, "tv": float(weights.tv) * tv_loss(image, spec.tv, kind)}
    for layer, weight in zip(spec.content_layers, weights.content_layers, strict=True):
        terms["content"] += float(weights.content * weight) * content_loss(found[layer], aim[layer], kind)
    for layer, weight in zip(spec.style_layers, weights.style_layers, strict=True):
        target = sum(share * gram(each[layer], kind) for share, each in zip(mix, seen, strict=True))
        terms["style"] += float(weights.style * weight) * style_loss(gram(found[layer], kind), target, kind)
    return terms


def adam_step(x, gradient, m, v, t, learning_rate, b1=0.9, b2=0.999, eps=1e-8):
    """Update number `t`, counted from 1 (Kingma & Ba 2015, algorithm 1)."""
    m = b1 * m + (1 - b1) * gradient
    v = b2 * v + (1 - b2) * gradient**2
    moved = x - learning_rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return moved, m, v


def numeric_slope(function, x, direction, step=1e-6):
    """Central difference of a scalar function along a direction."""
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)
