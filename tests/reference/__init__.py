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
        beyond = ("replicate" if name == "conv1_1" else "zeros") if padding == "replicate_first" else padding
        x = conv3x3(x, kernel, bias, beyond)
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
        "style_transfer_pytorch": total / (h * w * c),
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
        "style_transfer_pytorch": total / c**2,
    }[normalization]


def moments(f):
    """Mean `[c]` and second raw moment `[c, c]` over pixels."""
    h, w, _ = f.shape
    return f.sum((0, 1)) / (h * w), raw_gram(f) / (h * w)


def wasserstein_loss(found, aim, normalization, ridge=1e-4):
    """From moments: per channel, the squared 2-Wasserstein distance of two normal distributions."""
    (mean, now), (mean0, then) = found, aim
    c = len(mean)
    now, then = (second - np.outer(m, m) + ridge * np.eye(c) for m, second in ((mean, now), (mean0, then)))
    # tr (B^1/2 A B^1/2)^1/2 without a root of a matrix: A B has the same eigenvalues as what stands in the bracket.
    cross = np.sum(np.sqrt(np.linalg.eigvals(now @ then)).real)
    distance = np.sum((mean - mean0) ** 2) + np.trace(now) + np.trace(then) - 2 * cross
    size = np.sum(mean0**2) + np.trace(then)
    return distance / c / (size / c + 1e-6 if normalization == "relative" else 1)


def total_variation(image, kind):
    total, image = 0.0, np.asarray(image, np.float64)
    h, w, _ = image.shape
    if kind == "l2_nine":
        return _nine(image) * image.size
    for row in range(h):
        for column in range(w):
            for other in ((row + 1, column), (row, column + 1)):
                if other[0] < h and other[1] < w:
                    difference = image[other] - image[row, column]
                    total += np.sum(np.abs(difference) if kind == "l1" else difference**2)
    return total


def _nine(image):
    """As style-transfer-pytorch has it: means over straight and diagonal pairs, the border repeated once around."""
    h, w, c = image.shape
    at = lambda row, column: image[min(max(row, 0), h - 1), min(max(column, 0), w - 1)]  # noqa: E731
    straight = diagonal = 0.0
    for row in range(-1, h):
        for column in range(-1, w):
            if row >= 0 and column >= 0:
                straight += np.sum((at(row, column + 1) - at(row, column)) ** 2)
                straight += np.sum((at(row + 1, column) - at(row, column)) ** 2)
            diagonal += np.sum((at(row + 1, column + 1) - at(row, column)) ** 2)
            diagonal += np.sum((at(row + 1, column) - at(row, column + 1)) ** 2)
    return 2 * (straight / (h * w * c) / 3 + diagonal / ((h + 1) * (w + 1) * c) / 12)


def tv_loss(image, kind, normalization):
    h, w, c = image.shape
    if normalization == "relative":
        return total_variation(image, kind) / (h * w)
    if normalization == "style_transfer_pytorch":
        return total_variation(image, kind) / (h * w * c)
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
        if spec.style_loss == "gram":
            target = sum(share * gram(each[layer], kind) for share, each in zip(mix, seen, strict=True))
            loss = style_loss(gram(found[layer], kind), target, kind)
        else:
            parts = [moments(each[layer]) for each in seen]
            target = [sum(share * part[i] for share, part in zip(mix, parts, strict=True)) for i in (0, 1)]
            loss = wasserstein_loss(moments(found[layer]), target, kind)
        terms["style"] += float(weights.style * weight) * loss
    return terms


def resize(image, size, kind):
    """Interpolation pixel by pixel as PyTorch has it: centers at 1/2, the border repeated, cubic with a = -3/4."""
    image = np.asarray(image, np.float64)
    out = np.zeros((*size, image.shape[2]))
    for row in range(size[0]):
        for column in range(size[1]):
            for y, down in _taps(row, size[0], image.shape[0], kind):
                for x, across in _taps(column, size[1], image.shape[1], kind):
                    out[row, column] += down * across * image[y, x]
    return out


def _taps(index, after, before, kind):
    """Which pixels of a row stand behind one of the resized row's, and how much each counts."""
    place = (index + 0.5) * before / after - 0.5
    whole = int(np.floor(place))
    t = place - whole
    shares = {0: 1 - t, 1: t}
    if kind == "cubic":  # Keys' two pieces, at distances 1 + t, t, 1 - t and 2 - t
        near, far = lambda d: 1.25 * d**3 - 2.25 * d**2 + 1, lambda d: -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3
        shares = {-1: far(1 + t), 0: near(t), 1: near(1 - t), 2: far(2 - t)}
    return [(min(max(whole + offset, 0), before - 1), share) for offset, share in shares.items()]


def adam_step(x, gradient, m, v, t, learning_rate, b1=0.9, b2=0.999, eps=1e-8):
    """Update number `t`, counted from 1 (Kingma & Ba 2015, algorithm 1)."""
    m = b1 * m + (1 - b1) * gradient
    v = b2 * v + (1 - b2) * gradient**2
    moved = x - learning_rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return moved, m, v


def numeric_slope(function, x, direction, step=1e-6):
    """Central difference of a scalar function along a direction."""
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)
