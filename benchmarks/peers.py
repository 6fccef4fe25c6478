"""PyTorch's side: the same network and objective as one writes them there. The only module that imports torch.

A task is a folder with `task.json` and `arrays.npz`, written by the side of jnst; see `write`.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks import workers
from jnst.config import CONVOLUTIONS, parse_layers

LAYOUTS = ("contiguous", "channels_last")
"""Orders of PyTorch's memory, both tried: which is faster depends on size and machine."""


def write(folder: str | Path, task: Mapping[str, object], params: Mapping[str, object], **pictures: np.ndarray) -> None:
    """Writes a task.

    Args:
        folder: Where to.
        task: `StylizeConfig`'s fields of the objective, `padding`.
        params: A backbone's.
        pictures: `content` and `image` `[H, W, 3]` or with a batch in front, `style` `[h, w, 3]`, in [0, 1].
    """
    arrays = {"mean": params["mean"], **pictures}
    for name in CONVOLUTIONS:
        arrays |= {f"{name}/{part}": array for part, array in params.get(name, {}).items()}
    np.savez(Path(folder, "arrays.npz"), **{name: np.asarray(array, np.float32) for name, array in arrays.items()})
    Path(folder, "task.json").write_text(json.dumps(dict(task)), "utf-8")


def read(folder: str | Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """The task and its arrays."""
    with np.load(Path(folder, "arrays.npz")) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(Path(folder, "task.json").read_text("utf-8")), arrays


def params_of(arrays: Mapping[str, np.ndarray]) -> dict[str, object]:
    """The backbone among a task's arrays."""
    params = {"mean": arrays["mean"]}
    for name in CONVOLUTIONS:
        if f"{name}/kernel" in arrays:
            params[name] = {part: arrays[f"{name}/{part}"] for part in ("kernel", "bias")}
    return params


def serve(folder: str, layout: str) -> int:
    """The process of a layout."""
    return workers.serve(lambda: _Side(folder, layout).asked())


class _Side:
    def __init__(self, folder, layout):
        import torch

        self.torch, self.folder, self.layout = torch, folder, layout
        torch.set_num_threads(workers.cores())
        self.format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.task, arrays = read(folder)
        self.layers = {
            kind: list(zip(*parse_layers(f"{kind}_layers", self.task[f"{kind}_layers"]), strict=True))
            for kind in ("content", "style")
        }
        self.wanted = {name for pairs in self.layers.values() for name, _ in pairs}
        self.mean = self._put(arrays["mean"])[None, :, None, None]
        deepest = max(CONVOLUTIONS.index("conv" + name[4:]) for name in self.wanted)
        self.params = []
        for name in CONVOLUTIONS[: deepest + 1]:
            kernel = self._put(arrays[f"{name}/kernel"].transpose(3, 2, 0, 1)).contiguous(memory_format=self.format)
            self.params.append((name, kernel, self._put(arrays[f"{name}/bias"])))
        self.image = self._picture(arrays["image"])
        with torch.no_grad():
            content, style = self._features(self._picture(arrays["content"])), self._picture(arrays["style"])
            self.content = {name: content[name] for name, _ in self.layers["content"]}
            style, count = self._features(style), len(self.image)
            self.style = {name: self._gram(style[name]).expand(count, -1, -1) for name, _ in self.layers["style"]}

    def asked(self):
        return {"check": self.check, "step": self.step, "minimize": self.minimize}

    def _put(self, array):
        return self.torch.from_numpy(np.array(array, order="C")).to(workers.DEVICE)

    def _picture(self, array):
        """`[H, W, 3]`, or several, as a batch; contiguous in both layouts, since L-BFGS asks for that."""
        return self._put(array.reshape(-1, *array.shape[-3:]).transpose(0, 3, 1, 2))

    def _features(self, images):
        F, found = self.torch.nn.functional, {}
        pool = {"max": F.max_pool2d, "avg": F.avg_pool2d}[self.task["pooling"]]
        x = (images - self.mean).contiguous(memory_format=self.format)
        for name, kernel, bias in self.params:
            if name.endswith("_1") and name != "conv1_1":
                x = pool(x, 2)
            if self.task["padding"] == "zeros":
                x = F.conv2d(x, kernel, bias, padding=1)
            else:
                x = F.conv2d(F.pad(x, (1, 1, 1, 1), self.task["padding"]), kernel, bias)
            if name in self.wanted:
                found[name] = x
            # In place, as PyTorch's own ports do it, unless what stands before the rectifier is asked for.
            x = F.relu(x, inplace=name not in self.wanted)
            found["relu" + name[4:]] = x
        return {name: found[name] for name in self.wanted}

    def _gram(self, features):
        """`[B, c, c]`, divided by the number of elements as neural-style does."""
        flat = features.flatten(2)
        return self.torch.bmm(flat, flat.transpose(1, 2)) / (flat.shape[1] * flat.shape[2])

    def loss(self, images):
        """neural-style's, summed over the pictures: means of squared differences, and l1 of pixels in 0..255."""
        found, task, total = self._features(images), self.task, 0
        for name, weight in self.layers["content"]:
            total = total + task["content_weight"] * weight * self._distance(found[name], self.content[name])
        for name, weight in self.layers["style"]:
            total = total + task["style_weight"] * weight * self._distance(self._gram(found[name]), self.style[name])
        if task["tv_weight"]:
            rows, columns = images.diff(dim=2), images.diff(dim=3)
            total = total + task["tv_weight"] * 255 * (rows.abs().sum() + columns.abs().sum())
        return total

    def _distance(self, found, target):
        """The mean over a picture's elements, summed over pictures."""
        return self.torch.nn.functional.mse_loss(found, target) * len(found)

    def _gradient(self):
        image = self.image.requires_grad_()
        loss = self.loss(image)
        return loss, self.torch.autograd.grad(loss, image)[0]

    def check(self, tell):
        """The loss; its gradient goes into a file."""
        loss, gradient = self._gradient()
        np.save(Path(self.folder, f"{self.layout}.npy"), gradient.cpu().numpy().transpose(0, 2, 3, 1))
        return {"loss": loss.item()}

    def step(self, tell, **arguments):
        """Seconds of a loss and its gradient."""
        return workers.timed(lambda: self._gradient()[0].item(), **arguments)

    def minimize(self, tell: Callable[[dict], None], evals: int):
        """L-BFGS as neural-style-pt runs it: `[evaluation, seconds, loss]` of each."""
        canvas = (self.image.detach() * 255).requires_grad_()
        optimizer = self.torch.optim.LBFGS(
            [canvas], lr=1, max_iter=evals, history_size=100, tolerance_grad=-1, tolerance_change=-1
        )
        trace, start = [], time.perf_counter()
        said = start

        def closure():
            nonlocal said
            if len(trace) == evals:
                raise _Enough
            optimizer.zero_grad()
            loss = self.loss(canvas / 255)
            loss.backward()
            value, now = loss.item(), time.perf_counter()
            trace.append([len(trace) + 1, now - start, value if math.isfinite(value) else None])
            if now - said > 5:
                said = now
                tell({"done": len(trace), "seconds": now - start, "text": f"loss {value:.5g}"})
            return loss

        try:
            while len(trace) < evals:  # a step may end early; neural-style-pt then makes another
                optimizer.step(closure)
        except _Enough:
            pass
        return {"trace": trace}


class _Enough(Exception):
    """All evaluations are made."""
