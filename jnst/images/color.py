"""Whatever color a file holds -> sRGB: by its ICC profile where there is a usable one, else by the plain formula."""

import io

import numpy as np
from PIL import Image, ImageCms

from jnst.images.picture import Refused

__all__ = ["image_to_srgb", "samples_to_srgb", "unit_floats", "unit_integers"]


def image_to_srgb(image: Image.Image) -> Image.Image:
    """A Pillow image of 8 bits, of any mode without alpha, as mode RGB in sRGB."""
    profile = image.info.get("icc_profile")
    if image.mode not in ("RGB", "L", "CMYK"):
        # Pillow's own way from LAB ends in sRGB; the others stay in the space that the profile describes.
        profile = None if image.mode == "LAB" else profile
        image = image.convert("L" if image.mode == "1" else "RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile: the pixels are still a picture
    return image.convert("RGB")


def samples_to_srgb(values: np.ndarray, profile: bytes | None, bits: int) -> np.ndarray:
    """`[H, W, C]` float32 in [0, 1], gray, RGB or CMYK by C = 1, 3, 4 -> `[H, W, 3]` float32 sRGB.

    `bits` is how many the values had in the file: up to 8 a profile is applied in 8, which is ten times as fast.

    >>> samples_to_srgb(np.float32([[[1.0, 0.0, 0.0, 0.25]]]), None, 16)
    array([[[0.  , 0.75, 0.75]]], dtype=float32)
    """
    if profile and bits <= 8:
        mode = {1: "L", 3: "RGB", 4: "CMYK"}[values.shape[-1]]
        stored = np.rint(values * 255).astype(np.uint8)
        image = Image.frombytes(mode, (values.shape[1], values.shape[0]), stored.tobytes())
        image.info["icc_profile"] = profile
        return np.asarray(image_to_srgb(image), np.float32) / 255
    if profile:
        import imagecodecs

        # LittleCMS in floating point: its shortcuts for 16-bit integers are wrong by up to 17/255 (dark wide-gamut
        # colors), more than 8 bits would lose. Pillow offers neither. LittleCMS counts ink in percent.
        space, source = {1: ("gray", values[..., 0]), 3: ("rgb", values), 4: ("cmyk", values * 100)}[values.shape[-1]]
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        try:
            found = imagecodecs.cms_transform(
                np.ascontiguousarray(source, np.float32),
                profile,
                target,
                colorspace=space,
                outcolorspace="rgb",
                intent=imagecodecs.CMS.INTENT.PERCEPTUAL,  # as Pillow's
            )
            return np.clip(found.reshape(*values.shape[:2], 3), 0, 1)
        except (imagecodecs.CmsError, ValueError):
            pass  # as above
    if values.shape[-1] == 4:
        return (1 - values[..., :3]) * (1 - values[..., 3:])
    return np.broadcast_to(values, (*values.shape[:2], 3)).copy() if values.shape[-1] == 1 else values


def unit_integers(values: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned integers of so many bits as float32 in [0, 1]: the largest is 1.

    >>> unit_integers(np.array([0, 4095], np.uint16), 12)
    array([0., 1.], dtype=float32)
    """
    top = 2**bits - 1
    # More than float32 holds exactly is divided in float64.
    return (np.asarray(values, np.float32 if bits <= 16 else np.float64) / top).astype(np.float32)


def unit_floats(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Numbers without a stated range as float32 in [0, 1], and what they were divided by.

    Up to 2 they are meant as [0, 1] (sharpening leaves some above 1), else as those of 8 or 16 bits.

    Raises:
        Refused: not finite, or larger than any of that.

    >>> unit_floats(np.array([-0.1, 0.5, 1.25]))
    (array([0. , 0.5, 1. ], dtype=float32), 1.0)
    >>> unit_floats(np.array([0.0, 51.0]))
    (array([0. , 0.2], dtype=float32), 255.0)
    """
    if not np.isfinite(values).all():
        raise Refused("pixels that are not finite")
    largest = values.max()
    top = next((top for most, top in ((2, 1.0), (255, 255.0), (65535, 65535.0)) if largest <= most), None)
    if top is None:
        raise Refused(f"pixels up to {largest:g}: expected [0, 1], 0..255 or 0..65535")
    return np.clip(values / values.dtype.type(top), 0, 1).astype(np.float32), top
