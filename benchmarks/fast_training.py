"""What is claimed of `bin/fast train`, measured in one run on this machine:

    python benchmarks/fast_training.py norms FOLDER STYLE steps=300 size=128
    python benchmarks/fast_training.py together FOLDER STYLE,STYLE,STYLE,STYLE steps=6
    python benchmarks/fast_training.py passes FOLDER STYLE NETWORK photos=8

`norms`: instance against batch normalization from the same seed (Ulyanov et al. 2016). `together`: four networks as one
program, in turn and vmapped, against four trainings one after the other. `passes`: the loss of one pass on held-out
photos, and how many steps of optimizing reach it (Johnson et al. 2016 report 50 to 100).
"""

import dataclasses
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from jnst import api, images, network, objective, train, weights
from jnst.config import FastConfig, parse_layers
from jnst.tasks.fast import painting, training
from jnst.types import Rates, Weights
from jnst.weights import stylenets


class Bench:
    """What the measurements share: a folder's photos, styles, the loss network."""

    def __init__(self, folder, styles, **options):
        self.config = config = FastConfig(**options)
        found = images.find([folder])
        self.unseen = found[::20]
        held = set(self.unseen)
        self.photos = [path for path in found if path not in held]
        backbone = weights.load(config.weights)
        self.how = config.objective(backbone.padding)
        self.loss = network.network(
            backbone.params,
            [jnp.zeros((8, 8, 3))],
            objective.layers_of(self.how),
            pooling=self.how.pooling,
            padding=self.how.padding,
        )
        self.choices = [self._choice(name) for name in styles]

    def _choice(self, name):
        config = self.config
        picture = images.load(name)
        style = images.resize(picture, images.fit(picture.size, config.style_size)).opaque()
        numbers = (config.content_weight, config.style_weight, config.tv_weight)
        layers = (parse_layers("layers", text)[1] for text in (config.content_layers, config.style_layers))
        chosen = Weights(*map(jnp.float32, numbers), *(jnp.asarray(each, jnp.float32) for each in layers))
        return training.style_choice(
            self.loss, [style], [1.0], chosen, Rates(jnp.float32(config.learning_rate)), self.how
        )

    def spec(self, **options):
        """The static half of a training; options of the network, and `together`."""
        together = options.pop("together", "auto")
        net = dataclasses.replace(self.config.net, **options)
        return training.Spec(net=net, objective=self.how, training=self.config.training, together=together)

    def crops(self):
        """The batches of a training, always the same."""
        config = self.config
        return images.Crops(self.photos, seed=0, size=config.size, batch=config.batch, zoom=config.zoom).batch

    def held_out(self, count, size):
        """Crops that no training sees, `[count, size, size, 3]`."""
        crops = images.Crops(self.unseen, seed=2, size=size, batch=1, zoom=1.0)
        return np.concatenate([crops.batch(index) for index in range(count)])

    def train(self, choices, spec, callback):
        """A training; returns its result."""
        key = jax.random.key(0)
        mesh = train.spread_over(jax.devices()[:1], len(choices), self.config.batch)
        prepared = training.prepare(key, self.loss, choices, spec, mesh=mesh)
        with images.Ahead(self.crops(), stop=self.config.steps) as source:
            return training.run(key, prepared, source, print_every=10, callback=callback)


def norms(bench):
    """Prints the loss curves of both normalizations, the mean of ten rows each, and the held-out loss."""
    photos = bench.held_out(12, 2 * bench.config.size)
    print("norm      held-out loss (content + style + tv) after so many steps")
    for norm in ("instance", "batch"):
        spec, seen = bench.spec(norm=norm), {}

        def callback(record, spec=spec, seen=seen):
            steps = record.steps
            if record.step in (steps // 8, steps // 4, steps // 2, steps):
                rows = training.evaluate(record.variables()[0], bench.loss, bench.choices[0], photos, spec)
                seen[record.step] = float(np.mean([row["total"] for row in rows]))

        rows = bench.train(bench.choices[:1], spec, callback).trace
        print(f"{norm:9s} " + "  ".join(f"{step}: {total:.3f}" for step, total in seen.items()))
        curve = [row["total"] for row in rows]
        means = [np.mean(part) for part in np.array_split(curve, 6)]
        print(f"{'':9s} training loss, six parts of the way: " + "  ".join(f"{mean:.3f}" for mean in means), flush=True)


def together(bench):
    """Prints seconds a step of four networks: in turn and vmapped in one program, and four programs in turn."""
    steps, times = bench.config.steps, {}

    def timed(choices, spec):
        marks = []
        start = time.perf_counter()

        def callback(record):
            record.terms()
            marks.append(time.perf_counter())

        bench.train(choices, spec, callback)
        return marks[0] - start, float(np.median(np.diff(marks)))

    for _ in range(2):  # both rounds in this order: what a busy neighbor takes shows as a difference of rounds
        for name, spec in (("turn", bench.spec(together="turn")), ("vmap", bench.spec(together="vmap"))):
            times.setdefault(name, []).append(timed(bench.choices, spec))
        alone = [timed([choice], bench.spec()) for choice in bench.choices]
        times.setdefault("apart", []).append(tuple(map(sum, zip(*alone, strict=True))))
    least = min(step for _, step in times["apart"])
    for name, rounds in times.items():
        each = "  ".join(f"{first:.1f} s first, {step:.3f} s a step" for first, step in rounds)
        print(f"{name:6s} {each}  {min(step for _, step in rounds) / least:.2f} of apart ({steps} steps)", flush=True)


def passes(bench, name, style, count):
    """Prints, for each held-out photo, the loss of one pass and the steps of optimizing that reach it."""
    net, config = stylenets.load(name), bench.config
    spec = dataclasses.replace(bench.spec(), net=net.spec)
    photos = bench.held_out(count, config.size)
    options = {"size": config.size, "style_scale": config.style_size / config.size, "steps": 150, "print_every": 1}
    same = ("content_weight", "style_weight", "tv_weight", "content_layers", "style_layers")
    options |= {name: getattr(config, name) for name in same}
    reached = {"lbfgs": [], "adam": []}
    mix = np.ones(len(net.styles), np.float32)
    for number, photo in enumerate(photos):
        (row,) = training.evaluate(net.variables, bench.loss, bench.choices[0], photo[None], spec)
        np.asarray(painting.paint(net.variables, photo[None], mix, net.spec))
        line = f"photo {number + 1}: one pass {row['total']:.3f}"
        for optimizer, steps in reached.items():
            rows = api.stylize(photo, style, optimizer=optimizer, **options).trace
            step = next((each["step"] for each in rows if each["total"] <= row["total"]), options["steps"] + 1)
            steps.append(step)
            at = {each["step"]: each["total"] for each in rows}
            line += f"  {optimizer}: start {at[0]:.2f}, 50 {at[50]:.3f}, 100 {at[100]:.3f}; reached at {step}"
        print(line, flush=True)
    for optimizer, steps in reached.items():
        print(f"{optimizer}: one pass is worth {np.median(steps):.0f} steps (median; {min(steps)} to {max(steps)})")


def main(arguments):
    """The command."""
    words = [word for word in arguments if "=" not in word]
    options = dict(word.split("=", 1) for word in arguments if "=" in word)
    count = int(options.pop("photos", 8))
    options = {name: type(getattr(FastConfig, name))(value) for name, value in options.items()}
    what, folder, styles = words[0], words[1], words[2].split(",")
    bench = Bench(folder, styles, **options)
    if what == "passes":
        passes(bench, words[3], styles[0], count)
    else:
        {"norms": norms, "together": together}[what](bench)


if __name__ == "__main__":
    main(sys.argv[1:])
