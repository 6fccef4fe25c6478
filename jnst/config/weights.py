"""The flags of `weights`."""

import dataclasses

from jnst.config.choices import SOURCES
from jnst.config.options import option

__all__ = ["WeightsConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """The flags of `weights`."""

    output: str = option("", "The file to write: .safetensors by convert, a picture by inspect.")
    source: str = option("auto", "What a file's network was fed, where its numbers do not show it.", choices=SOURCES)
    url: str = option("", "For fetch: another address of the same file; its hash is checked as ever.")
