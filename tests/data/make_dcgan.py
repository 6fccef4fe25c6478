"""Makes dcgan.npz: two updates of both networks of a small DCGAN by an independent implementation, in PyTorch.

.venv-bench/bin/python -P tests/data/make_dcgan.py

The implementation is benchmarks/dcgan_peers.py. Pictures, noise and first weights are in the file, too: the noise is
what jnst draws from key 0 for seed 0, the weights are normal with deviations that give no layer a tiny output.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import dcgan_peers  # noqa: E402

SIDE, WIDTH, LATENT, BATCH, UPDATES = 28, 3, 5, 4, 2


def weights(rng):
    """Of a generator and a discriminator, by name."""

    def normal(*shape):
        fan_in = np.prod(shape[:-1])
        return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    def norm(level, width):
        scale = 1 + 0.2 * rng.standard_normal(width)
        shift = 0.2 * rng.standard_normal(width)
        return {f"norm_{level}/scale": scale.astype(np.float32), f"norm_{level}/shift": shift.astype(np.float32)}

    generator = {"first": normal(LATENT, 7 * 7 * 2 * WIDTH), **norm(0, 2 * WIDTH)}
    generator |= {"up_1": normal(4, 4, 2 * WIDTH, WIDTH), **norm(1, WIDTH)}
    generator |= {"last": normal(4, 4, WIDTH, 3), "bias": normal(1, 3)[0]}
    discriminator = {"down_0": normal(4, 4, 3, WIDTH), "bias_0": normal(1, WIDTH)[0]}
    discriminator |= {"down_1": normal(4, 4, WIDTH, 2 * WIDTH), **norm(1, 2 * WIDTH)}
    discriminator |= {"last": normal(7 * 7 * 2 * WIDTH, 1), "bias": normal(1, 1)[0]}
    return generator, discriminator


def noise():
    """What jnst draws in its first steps, `[UPDATES, BATCH, LATENT]`."""
    import jax

    def of_step(step):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), np.uint32(0)), step)
        keys = [jax.random.fold_in(jax.random.fold_in(key, 0), number) for number in range(BATCH)]
        return np.stack([np.asarray(jax.random.normal(key, (LATENT,))) for key in keys])

    return np.stack([of_step(step) for step in range(UPDATES)])


def main():
    rng = np.random.default_rng(0)
    generator, discriminator = weights(rng)
    pictures = rng.integers(0, 256, (UPDATES, BATCH, SIDE, SIDE, 3), np.uint8)
    z = noise()
    found = {f"start/generator/{name}": array for name, array in generator.items()}
    found |= {f"start/discriminator/{name}": array for name, array in discriminator.items()}
    training = dcgan_peers.Training(generator, discriminator, rate=2e-4, beta1=0.5)
    terms = [training.update(z[step], pictures[step]) for step in range(UPDATES)]
    made = training.made(dcgan_peers.torch.from_numpy(z[0])).detach().permute(0, 2, 3, 1).numpy()
    found |= {"pictures": pictures, "z": z, "terms": np.array(terms, np.float64), "made": made.astype(np.float32)}
    np.savez_compressed(Path(__file__).with_name("dcgan.npz"), **found, **training.arrays())


if __name__ == "__main__":
    main()
