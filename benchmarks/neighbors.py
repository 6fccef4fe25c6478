"""How often the nearest picture has the same label, by last-layer features and by pixels.

python benchmarks/neighbors.py FOLDER [queries=1000 known=5000 size=96 weights=mini layers= seed=0]

FOLDER has a subfolder for each label, such as CIFAR-10's test pictures. So many pictures are drawn as queries and
others as the known ones, at random; each query gets the label of the known picture that is nearest to it, as
`bin/explore neighbors` tells it; also by features as they are, not decorrelated. Chance is 1 / (number of labels).
Prints JSON last.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jnst import calibration, embedding_index, images, weights
from jnst.config import split_list
from jnst.tasks import explore

DEFAULTS = {"queries": "1000", "known": "5000", "size": "96", "weights": "mini", "layers": "", "seed": "0"}


def main(argv):
    """Measures and prints; returns the exit code."""
    given = dict(word.split("=", 1) for word in argv[2:] if "=" in word)
    if len(argv) < 2 or len(given) < len(argv) - 2 or given.keys() - DEFAULTS.keys():
        print(__doc__, file=sys.stderr)
        return 2
    chosen = {**DEFAULTS, **given}
    queries, known, size, seed = (int(chosen[name]) for name in ("queries", "known", "size", "seed"))
    paths = images.find([argv[1]])
    labels = np.array([path.relative_to(argv[1]).parts[0] for path in paths])
    if len(paths) < queries + known:
        print(f"{argv[1]}: {len(paths)} pictures; expected {queries + known}", file=sys.stderr)
        return 2
    order = np.random.default_rng(seed).permutation(len(paths))[: queries + known]
    backbone = weights.load(chosen["weights"])
    layers = split_list(chosen["layers"]) or ("relu" + backbone.convolutions[-1][4:],)
    start = time.perf_counter()
    features, pixels = _look([paths[index] for index in order], backbone, layers, size)
    seconds = time.perf_counter() - start
    labels = labels[order]
    result = {"queries": queries, "known": known, "size": size, "layers": layers, "weights": backbone.name}
    decorrelated = calibration.decorrelation(features[queries:])(features)
    for name, table in (("features", decorrelated), ("features_as_they_are", features), ("pixels", pixels)):
        result[name] = round(_agreement(table, labels, queries), 4)
        print(f"{name}: the nearest of {known} has the label of {result[name]:.1%} of {queries}", flush=True)
    result["points"] = round(100 * (result["features"] - result["pixels"]), 2)
    result["seconds_per_1000"] = round(1000 * seconds / len(order), 2)
    print(json.dumps(result))
    return 0


def _look(paths, backbone, layers, size):
    """Features and pixels of pictures, `[n, d]` each."""

    def describe(block):
        found = explore.describe(backbone.params, block, layers, pooling="avg", padding=backbone.padding)
        return np.asarray(found)

    with tempfile.TemporaryDirectory() as folder:  # an index of its own, that nothing is left of
        for number, path in enumerate(paths):
            Path(folder, f"{number:06d}{path.suffix}").symlink_to(path.resolve())
        entries = embedding_index.update(folder, {"benchmark": size}, describe, side=size).entries
        embedding_index.path_of(folder, {"benchmark": size, "side": size}).unlink(missing_ok=True)
    entries = [entries[name] for name in sorted(entries)]
    if len(entries) != len(paths):
        raise SystemExit("not every picture can be read")
    return np.stack([entry.features for entry in entries]), np.stack([entry.pixels.ravel() for entry in entries])


def _agreement(table, labels, queries):
    table = table.astype(np.float64)
    asked, known = table[:queries], table[queries:]
    distances = (known**2).sum(1)[None] - 2 * asked @ known.T
    return float((labels[queries:][distances.argmin(1)] == labels[:queries]).mean())


if __name__ == "__main__":
    sys.exit(main(sys.argv))
