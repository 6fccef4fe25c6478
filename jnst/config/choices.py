"""The tables of choices: one place for code, flags and messages alike."""

from collections.abc import Mapping

__all__ = [
    "ADVERSARIAL_LOSSES",
    "BLOCKS",
    "BORDERS",
    "CONVOLUTIONS",
    "DIRECTIONS",
    "DISCRIMINATORS",
    "GAN_NORMS",
    "HAVE_BETA2",
    "HEADS",
    "INITS",
    "NORMALIZES",
    "NORMS",
    "LINE_SEARCHES",
    "OPTIMIZERS",
    "PADDINGS",
    "PAIRED",
    "PATCHES",
    "PIX2PIX_LOSSES",
    "POOLINGS",
    "PRECISIONS",
    "PRECONDITIONERS",
    "PRESERVE_COLORS",
    "PROJECTIONS",
    "RESAMPLINGS",
    "ROUNDINGS",
    "SCALE_FACTORS",
    "SCHEDULES",
    "SOURCES",
    "STYLE_FITS",
    "STYLENET_BORDERS",
    "STYLE_LOSSES",
    "TOGETHER",
    "TOTAL_VARIATIONS",
    "UPSAMPLES",
]

BLOCKS = (2, 2, 4, 4, 4)
"""VGG-19 (Simonyan & Zisserman 2015, configuration E): convolutions in each block; pooling stands between blocks."""

CONVOLUTIONS = tuple(f"conv{block}_{index}" for block, count in enumerate(BLOCKS, 1) for index in range(1, count + 1))
"""Their names, in order."""

POOLINGS = {
    "max": "the largest of 2x2, as VGG was trained",
    "avg": "the mean of 2x2, smoother pictures (Gatys et al. 2016)",
    "l2": "the root of the mean square of 2x2 (Henaff & Simoncelli 2016)",
}
PADDINGS = ("zeros", "reflect", "replicate")
"""Of a convolution; the weights were trained with one of them."""
BORDERS = (*PADDINGS, "replicate_first", "wrap")
"""Of a whole network. `replicate_first`: `replicate` before the first convolution, `zeros` before the others. `wrap`:
the picture is a torus, its left edge beside its right one."""
SOURCES = {
    "auto": "what the file's names and numbers show, or an error",
    "caffe": "BGR in 0..255 minus Caffe's mean (vgg19-d01eb7cb.pth, vgg_conv.pth)",
    "torchvision": "RGB in [0, 1] minus a mean, over a deviation (vgg19-dcbb9e9d.pth)",
    "normalised": "RGB in [0, 1], through a first 1x1 layer; borders reflected (vgg_normalised.pth)",
    "slim16x": "RGB in [0, 1], through a first layer conv0; borders reflected (Wang et al. 2020)",
    "keras": "BGR in 0..255 minus Caffe's mean (vgg19_weights_..._notop.h5)",
    "matconvnet": "RGB in 0..255 minus the file's mean (imagenet-vgg-verydeep-19.mat)",
}
"""What a weights file's network was fed; the file's first layer may do it."""
TOTAL_VARIATIONS = {
    "l1": "sum of |difference|",
    "l2": "sum of squared difference",
    "l2_nine": "sum of squared difference to all eight neighbors (style-transfer-pytorch)",
}
STYLE_LOSSES = {
    "gram": "squared difference of Gram matrices (Gatys et al. 2016)",
    "wasserstein": "2-Wasserstein distance of the normal distributions that have the features' mean and covariance",
}
STYLE_FITS = {
    "resize": "its longest side is made so long",
    "shrink": "likewise, but a smaller picture stays as it is",
}
RESAMPLINGS = {
    "lanczos": "Lanczos, in floating point",
    "bicubic8": "Pillow's bicubic, of pixels in 8 bits (style-transfer-pytorch)",
}
ROUNDINGS = {"nearest": "to the nearest of the output's levels", "down": "to the next lower one"}
INITS = {
    "content": "the content image",
    "noise": "the network's mean color plus uniform noise",
    "mix": "noise_ratio * noise + (1 - noise_ratio) * content",
}
PROJECTIONS = {"clip": "to the displayable range after each step", "none": "clipped on saving only"}
LINE_SEARCHES = {
    "none": "whole steps after the first, as neural-style runs L-BFGS",
    "zoom": "optax's search for a step that satisfies the strong Wolfe conditions; several gradients a step",
}
PRECONDITIONERS = {
    "fourier": "steps longer at frequencies where the loss is flat: the lowest and the highest",
    "none": "all frequencies alike, as neural-style runs L-BFGS",
}
NORMALIZES = {
    "mean": "by the mean of its absolute values, as the original DeepDream does",
    "deviation": "by its standard deviation, as TensorFlow's tutorial does",
    "none": "by nothing",
}
"""How a gradient is divided before plain steps along it."""
PRESERVE_COLORS = {
    "none": "the style's colors",
    "luminance": "style transfer of luminance only, the content's chroma put back (Gatys et al. 2017)",
    "match": "the style is recolored to the content's mean and covariance first (Gatys et al. 2017)",
}
SCALE_FACTORS = {"2": 2.0, "sqrt2": 2**0.5}
"""From one size of a pyramid to the next."""
SCHEDULES = {
    "constant": "after the warm-up, the same",
    "cosine": "after the warm-up, down to 0 along a cosine (Loshchilov & Hutter 2017)",
    "linear": "the same for half of the steps, then down to 0 along a line (Zhu et al. 2017)",
}
NORMS = {
    "instance": "by the moments of each picture's own maps (Ulyanov et al. 2016)",
    "batch": "by the moments of all maps of a batch, running ones at use (Ioffe & Szegedy 2015)",
}
"""Of a stylenet."""
STYLENET_BORDERS = ("reflect", "replicate")
"""Of a stylenet's convolutions."""
UPSAMPLES = {
    "resize": "pixels made two by two, then a convolution (Odena et al. 2016)",
    "transpose": "a transposed convolution, as Johnson et al. had it",
}
HEADS = {
    "residual": "the photo plus what the last convolution gives",
    "linear": "what the last convolution gives",
    "tanh": "bounded by 150 tanh, in 0..255 (Johnson et al. 2016)",
}
"""How a stylenet's last maps become a picture."""
TOGETHER = {
    "auto": "in turn, which was measured to be faster on a CPU; elsewhere nothing was measured yet",
    "vmap": "one vmapped pass, whose convolutions are grouped",
    "turn": "one after the other",
}
"""How several networks that are trained at once go through one program."""
DISCRIMINATORS = {
    "batch": "batch normalization after all convolutions but the first (Radford et al. 2016)",
    "dropout": "no normalization; a share of each layer's output is dropped (TensorFlow's tutorial)",
}
"""What keeps a DCGAN's discriminator in check."""
ADVERSARIAL_LOSSES = {
    "bce": "cross-entropy, the generator's not saturating: -log D(G(z)) (Goodfellow et al. 2014)",
    "saturating": "cross-entropy, the generator's as the game has it: log(1 - D(G(z)))",
    "lsgan": "squared differences from 1 and 0 (Mao et al. 2017)",
}
"""By what a generator and a discriminator play."""
PIX2PIX_LOSSES = {
    "l1+cgan": "both (the paper's)",
    "l1": "the mean absolute difference from the target alone",
    "gan": "a discriminator that sees the output alone",
    "cgan": "one that sees input and output",
    "l1+gan": "both, the discriminator seeing the output alone",
}
"""By what pix2pix's generator learns."""
DIRECTIONS = {
    "AtoB": "from the left half of the pictures to the right one; of CycleGAN, from --a to --b",
    "BtoA": "the other way",
}
"""From what to what pictures are translated."""
PATCHES = {
    "70": "three strided convolutions (both papers')",
    "1": "none: each pixel by itself",
    "16": "one",
    "34": "two",
    "142": "four",
    "286": "five",
}
"""Side of the patch that a PatchGAN judges, in pixels."""
GAN_NORMS = {
    "auto": "by picture up to batches of three, by batch from four up",
    "instance": "each picture by its own moments",
    "batch": "by those of a batch; in use, by the picture's own",
}
"""How the networks of pix2pix and CycleGAN normalize."""
PAIRED = {
    "auto": "a picture that is just twice as wide as high is an A|B picture, and the half that goes in is taken",
    "yes": "all are",
    "no": "none is",
}
"""Whether pictures that are translated are A|B pictures."""
PRECISIONS = {
    "float32": "the default",
    "bfloat16": "features in bfloat16, sums in float32",
    "float64": "for comparing with references",
}

# The names are optax's; the values are arguments that differ from optax's defaults. `lbfgs` has options of its own.
HAVE_BETA2 = ("adabelief", "adam", "adamax", "amsgrad", "lion", "nadam")
"""Optimizers whose second decay can be set."""

OPTIMIZERS: Mapping[str, Mapping[str, float]] = {
    "adam": {},
    "adabelief": {},
    "adamax": {},
    "amsgrad": {},
    "lbfgs": {},
    "lion": {"weight_decay": 0.0},  # which would pull the picture towards black
    "nadam": {},
    "rmsprop": {},
    "sgd": {"momentum": 0.9},
}
