"""The stylenet (Johnson et al. 2016, Ulyanov et al. 2016, Dumoulin et al. 2017) in plain NumPy float64."""

import numpy as np


def painted(variables, images, mix, spec, train=False):
    """What the network makes of `[N, H, W, 3]`; in training also the moments by normalization, (mean, variance)."""
    net = _Net(variables, np.asarray(mix, np.float64), spec, train)
    images = np.asarray(images, np.float64)
    levels = len(spec.widths)
    x, heights = images - 0.45, []
    for level in range(levels):
        heights.append(x.shape[1:3])
        x = net.normalized(f"downs_{level}", net.conv(x, f"downs_{level}", stride=2 if level else 1))
        x = np.maximum(x, 0)
    heights.append(x.shape[1:3])
    for block in range(spec.blocks):
        y = net.normalized(f"blocks_{block}_0", net.conv(x, f"blocks_{block}_0"))
        y = np.maximum(y, 0)
        x = x + net.normalized(f"blocks_{block}_1", net.conv(y, f"blocks_{block}_1"))
    for rise in range(levels - 1):
        name = f"ups_{rise}"
        if spec.upsample == "resize":
            x = net.conv(x.repeat(2, axis=1).repeat(2, axis=2), name)
        else:
            x = transposed(x, net.kernel(name))
        height, width = heights[levels - 1 - rise]  # of the map that the same level had on the way down
        x = np.maximum(net.normalized(name, x[:, :height, :width]), 0)
    x = correlation(x, net.params["last"], spec.border) + net.params["bias"]
    picture = {"residual": images + x, "linear": 0.45 + x, "tanh": 0.45 + 150 / 255 * np.tanh(x)}[spec.head]
    return (picture, net.found) if train else picture


class _Net:
    def __init__(self, variables, mix, spec, train):
        self.params, self.running = variables["params"], variables.get("running")
        self.mix, self.spec, self.train, self.found = mix, spec, train, {}

    def kernel(self, name):
        return np.asarray(self.params[name]["kernel"], np.float64)

    def conv(self, x, name, stride=1):
        return correlation(x, self.kernel(name), self.spec.border, stride)

    def normalized(self, name, x):
        if self.spec.norm == "instance":
            mean, variance = np.stack([[m.mean((0, 1)), m.var((0, 1))] for m in x], 1)[:, :, None, None]
        elif self.train:
            flat = x.reshape(-1, x.shape[-1])
            mean, variance = self.found[name] = flat.mean(0), flat.var(0)
        else:
            mean, variance = (np.asarray(self.running[name][part], np.float64) for part in ("mean", "variance"))
        rows = self.params[name]  # of each style
        scale = np.einsum("ns,sc->nc", self.mix, np.asarray(rows["scale"], np.float64))
        shift = np.zeros_like(scale)
        if not name.endswith("_1") or not name.startswith("blocks"):  # what a block ends with is only scaled
            shift = np.einsum("ns,sc->nc", self.mix, np.asarray(rows["shift"], np.float64))
        return (x - mean) / np.sqrt(variance + 1e-5) * scale[:, None, None] + shift[:, None, None]


def correlation(x, kernel, border, stride=1):
    """A sum over the taps of the kernel, each of which looks up the pixels that it meets."""
    kernel = np.asarray(kernel, np.float64)
    k, middle = len(kernel), len(kernel) // 2
    at = [range(0, length, stride) for length in x.shape[1:3]]
    total = 0
    for i in range(k):
        rows = [_source(row + i - middle, x.shape[1], border) for row in at[0]]
        for j in range(k):
            columns = [_source(column + j - middle, x.shape[2], border) for column in at[1]]
            total = total + np.einsum("nhwc,cd->nhwd", x[:, rows][:, :, columns], kernel[i, j])
    return total


def _source(index, length, border):
    """The pixel that stands for one beyond the border."""
    if border == "replicate" or length == 1:
        return min(max(index, 0), length - 1)
    while not 0 <= index < length:  # a map may be narrower than half a kernel
        index = -index if index < 0 else 2 * (length - 1) - index
    return index


def transposed(x, kernel):
    """Each pixel lays the kernel, turned around, onto a map twice as large; what falls beyond it is lost."""
    n, height, width, _ = x.shape
    kernel = np.asarray(kernel, np.float64)[::-1, ::-1]
    out = np.zeros((n, 2 * height + 1, 2 * width + 1, kernel.shape[-1]))
    for row in range(height):
        for column in range(width):
            out[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3] += np.einsum(
                "nc,ijcd->nijd", x[:, row, column], kernel
            )
    return out[:, 1:, 1:]
