"""How much of a real VGG-19's style another backbone transfers: optimized with it, measured under the real one.

python benchmarks/backbones.py JUDGE PICTURES OUT [BACKBONE ...] [-- name=value ...]

JUDGE is the weights file of the real network (its first layers will do), PICTURES a folder with content/ and style/,
OUT a folder that keeps every picture made, so that a second run makes only what is missing. Each of six pairs is
painted with five content weights by each backbone (default: random mini JUDGE), same layers, same steps. Style and
content losses are the default objective's, under the judge. `recovered` compares the falls of the style loss from the
content picture's, at the content losses of the judge's own pictures: the others' are interpolated, and beyond a
backbone's strongest stylization that one counts. Prints a table and JSON; OUT/sheet.jpg shows each pair at weight 1.
"""

import functools
import hashlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jnst
from jnst import images, objective, weights
from jnst.config import ObjectiveSpec
from jnst.types import Targets, Weights

# Pictures that may be shown: Kodak's (unrestricted), scikit-image's (CC0), and public domain.
PAIRS = (
    ("wm_air_force_academy_chapel.jpg", "vangogh_starry_night.jpg"),
    ("kodim19.png", "hokusai_great_wave.jpg"),
    ("skimage_chelsea.png", "vangogh_self.jpg"),
    ("kodim23.png", "kandinsky_composition_vii.jpg"),
    ("wm_washington_monument.jpg", "munch_the_scream.jpg"),
    ("skimage_coffee.png", "seurat_la_grande_jatte.jpg"),
)
CONTENT_WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the judge: a decade to either side of the default
OTHER_WEIGHTS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # of the others, so that their content losses span the judge's
SHOWN = 1.0
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1")
CONTENT_LAYER = "relu3_4"
OPTIONS = {"size": 256, "steps": 60, "pooling": "avg"}


def paint(backbone, content, style, content_weight, out, options):
    """The picture of one run, kept in a file."""
    layers = {"style_layers": ",".join(STYLE_LAYERS), "content_layers": CONTENT_LAYER}
    chosen = {"weights": backbone, "content_weight": content_weight, **layers, **options}
    facts = {**chosen, "sha256": _digest(backbone), "content": str(content), "style": str(style)}
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = out / f"{Path(backbone).stem}-{content.stem}-{style.stem}-{content_weight:g}-{name}.png"
    if not path.exists():
        jnst.stylize(content, style, print_every=0, bit_depth=16, **chosen).save(path)
    return images.load(path).rgb


@functools.cache
def _digest(backbone):
    return "" if backbone.startswith("random") else weights.load(backbone).sha256


class Judge:
    """Style and content loss of pictures under the real network."""

    def __init__(self, name, content, style, pooling):
        backbone = weights.load(name)
        self.params = jax.tree.map(jnp.asarray, dict(backbone.params))
        self.spec = ObjectiveSpec(
            content_layers=(CONTENT_LAYER,), style_layers=STYLE_LAYERS, pooling=pooling, padding=backbone.padding
        )
        self.targets = Targets(
            objective.content_targets(self.params, jnp.asarray(content), self.spec),
            objective.style_statistics(self.params, jnp.asarray(style), self.spec),
        )
        self.weights = Weights(*map(jnp.float32, (1, 1, 0)), jnp.ones(1), jnp.full(len(STYLE_LAYERS), 1 / 3))
        self.measure = jax.jit(functools.partial(objective.style_objective, spec=self.spec))

    def __call__(self, image):
        _, terms = self.measure(self.params, jnp.asarray(image), self.targets, self.weights)
        return float(terms["content"]), float(terms["style"])


def recovered(own, judges):
    """Of two lists of (content, style) that begin at the content picture: the shares of the judge's falls."""
    start = own[0][1]
    own = sorted(own)
    shares = []
    for content, style in judges[1:]:
        reached = np.interp(content, *np.array(own).T)
        shares.append((start - reached) / (start - style))
    return shares


def main(arguments):
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    options = {**OPTIONS, **{name: type(OPTIONS[name])(value) for name, value in options.items()}}
    judge_name, pictures, out, *backbones = [
        argument for argument in arguments if "=" not in argument and argument != "--"
    ]
    backbones = backbones or ["random", "mini", judge_name]
    if judge_name not in backbones:
        backbones.append(judge_name)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows, tiles = [], []
    for content_name, style_name in PAIRS:
        paths = Path(pictures, "content", content_name), Path(pictures, "style", style_name)
        size = options["size"]
        content, style = (images.load(path) for path in paths)
        content, style = (images.resize(each, images.fit(each.size, size)).opaque() for each in (content, style))
        judge = Judge(judge_name, content, style, options["pooling"])
        found = {}
        for backbone in backbones:
            own = CONTENT_WEIGHTS if backbone == judge_name else OTHER_WEIGHTS
            painted = {weight: paint(backbone, *paths, weight, out, options) for weight in own}
            found[backbone] = [judge(content), *map(judge, painted.values())]
            tiles.append(_tile(painted[SHOWN], size))
        row = {"content": content_name, "style": style_name}
        for backbone in backbones:
            shares = recovered(found[backbone], found[judge_name])
            row[Path(backbone).stem] = {
                "recovered": [round(share, 3) for share in shares],
                "mean": round(float(np.mean(shares)), 3),
                "content_style": [[round(value, 4) for value in pair] for pair in found[backbone]],
            }
        rows.append(row)
        print(
            f"{content_name} {style_name}: "
            + "  ".join(f"{Path(b).stem} {row[Path(b).stem]['mean']:.3f}" for b in backbones),
            flush=True,
        )
        images.save(out / "sheet.jpg", images.Picture(images.contact_sheet(tiles, columns=len(backbones))))
    means = {Path(b).stem: round(float(np.mean([row[Path(b).stem]["mean"] for row in rows])), 3) for b in backbones}
    print("mean:", means)
    print(json.dumps({"benchmark": "backbones", "options": options, "mean": means, "rows": rows}))


def _tile(image, size):
    """In the middle of a gray square: a sheet's tiles have one size."""
    tile = np.full((size, size, 3), 0.9, np.float32)
    top, left = ((size - side) // 2 for side in image.shape[:2])
    tile[top : top + image.shape[0], left : left + image.shape[1]] = image
    return tile


if __name__ == "__main__":
    main(sys.argv[1:])
