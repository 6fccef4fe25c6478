"""The DCGAN of `jnst.nets.dcgan` and its update in PyTorch, written apart from it: for goldens and for speed."""

import numpy as np
import torch
from torch.nn import functional as F

__all__ = ["EPSILON", "Training"]

EPSILON = 1e-5


class Training:
    """Both networks, both optimizers.

    `generator` and `discriminator` are dicts of arrays with jnst's names and layouts: dense `[in, out]`, kernels
    `[4, 4, in, out]`, a normalization's as `norm_1/scale`. `layout` is `contiguous` or `channels_last`.
    """

    def __init__(self, generator, discriminator, *, norm="batch", rate=2e-4, beta1=0.5, layout="contiguous"):
        self.order = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.norm = norm
        self.generator = {name: self._own(name, array, "io") for name, array in generator.items()}
        self.discriminator = {name: self._own(name, array, "oi") for name, array in discriminator.items()}
        self.optimizers = [
            torch.optim.Adam(list(own.values()), rate, betas=(beta1, 0.999))
            for own in (self.generator, self.discriminator)
        ]

    def _own(self, name, array, order):
        tensor = torch.from_numpy(np.array(array))
        if tensor.ndim == 4:  # a transposed convolution's has the inputs first, a convolution's the outputs
            tensor = tensor.permute(*((2, 3, 0, 1) if order == "io" else (3, 2, 0, 1)))
            tensor = tensor.contiguous(memory_format=self.order)
        return tensor.requires_grad_()

    def made(self, z):
        """Pictures `[N, 3, S, S]` from noise `[N, latent]`."""
        own = self.generator
        levels = sum(name.startswith("up_") for name in own)
        width = own["norm_0/scale"].shape[0]
        x = z @ own["first"]
        side = round((x.shape[1] / width) ** 0.5)
        x = x.reshape(-1, side, side, width).permute(0, 3, 1, 2).contiguous(memory_format=self.order)
        x = F.relu(self._normalized(x, own, 0))
        for level in range(1, levels + 1):
            x = F.relu(self._normalized(F.conv_transpose2d(x, own[f"up_{level}"], stride=2, padding=1), own, level))
        return torch.tanh(F.conv_transpose2d(x, own["last"], own["bias"], stride=2, padding=1))

    def logits(self, x):
        """What the discriminator says of pictures `[N, 3, S, S]`; nothing is dropped."""
        own = self.discriminator
        for level in range(sum(name.startswith("down_") for name in own)):
            x = F.conv2d(x, own[f"down_{level}"], own.get(f"bias_{level}"), stride=2, padding=1)
            if level and self.norm == "batch":
                x = self._normalized(x, own, level)
            x = F.leaky_relu(x, 0.2)
        return (x.permute(0, 2, 3, 1).reshape(len(x), -1) @ own["last"])[:, 0] + own["bias"]

    def _normalized(self, x, own, level):
        return F.batch_norm(x, None, None, own[f"norm_{level}/scale"], own[f"norm_{level}/shift"], True, eps=EPSILON)

    def update(self, z, pictures):
        """One update of both at once, from noise and bytes `[N, S, S, 3]`; the two losses and the two accuracies."""
        real = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        real = real.contiguous(memory_format=self.order)
        made = self.made(torch.from_numpy(np.array(z)))
        of_real, of_made = self.logits(real), self.logits(made)
        ones, zeros = torch.ones_like(of_real), torch.zeros_like(of_made)
        bce = F.binary_cross_entropy_with_logits
        generator = bce(of_made, ones)
        discriminator = bce(of_real, ones) + bce(of_made, zeros)
        # Of each loss what its own network needs, not more.
        first = torch.autograd.grad(generator, list(self.generator.values()), retain_graph=True)
        second = torch.autograd.grad(discriminator, list(self.discriminator.values()))
        for own, found, optimizer in zip(
            (self.generator, self.discriminator), (first, second), self.optimizers, strict=True
        ):
            for tensor, gradient in zip(own.values(), found, strict=True):
                tensor.grad = gradient
            optimizer.step()
        right = (of_real > 0).float().mean(), (of_made <= 0).float().mean()
        return tuple(value.item() for value in (generator, discriminator, *right))

    def arrays(self):
        """Parameters and Adam's two moments by name, in jnst's layouts."""
        found = {}
        for place, (side, own) in enumerate((("generator", self.generator), ("discriminator", self.discriminator))):
            for name, tensor in own.items():
                state = self.optimizers[place].state[tensor]
                for kind, value in (("params", tensor), ("mu", state["exp_avg"]), ("nu", state["exp_avg_sq"])):
                    value = value.detach()
                    if value.ndim == 4:
                        value = value.permute(*((2, 3, 0, 1) if side == "generator" else (2, 3, 1, 0)))
                    found[f"{kind}/{side}/{name}"] = value.contiguous().numpy()
        return found
