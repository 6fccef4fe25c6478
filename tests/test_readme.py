"""The README says what the code does."""

import dataclasses
import re
from pathlib import Path

import pytest

from jnst.config import DistillConfig, DreamConfig, FastConfig, GridConfig, StylizeConfig, TextureConfig, check
from jnst.normalizations import NORMALIZATIONS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
KINDS = {"distill": DistillConfig, "deepdream": DreamConfig, "gatys2015": TextureConfig, "fast": FastConfig}
"""Whose presets they are, by the first word of their names; the others are of `stylize`."""


@pytest.mark.parametrize("field", dataclasses.fields(StylizeConfig), ids=lambda field: field.name)
def test_flag_table_holds_the_default_and_the_choices(field):
    row = re.search(rf"^\| `--{field.name}` \| (.*?) \| (.*) \|$", README, re.MULTILINE)
    assert row, f"--{field.name} is not in the README's table"
    assert row[1].strip() == (f"`{field.default}`" if field.default != "" else "")
    assert field.metadata["help"] in row[2]
    for choice in field.metadata["choices"] or ():
        assert str(choice) in row[2]


def test_flag_table_names_no_flag_that_is_gone():
    named = set(re.findall(r"^\| `--(\w+)` \|", README, re.MULTILINE))
    assert named == {field.name for field in dataclasses.fields(GridConfig)} | {"dry_run", "flagfile", "resume"}


@pytest.mark.parametrize("name", sorted(vars(GridConfig)["__annotations__"]))
def test_flag_table_of_grid_holds_the_default(name):
    field = next(field for field in dataclasses.fields(GridConfig) if field.name == name)
    row = [row for row in README.splitlines() if row.startswith(f"| `--{name}` |")][-1]
    default = f"`{field.default}`" if field.default not in ("", ()) else ""
    assert row == f"| `--{name}` | {default} | {field.metadata['help']} |"


def test_every_normalization_is_explained():
    assert all(f"| `{name}` |" in README for name in NORMALIZATIONS)


def test_files_that_the_readme_points_to_are_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.flags")), ids=lambda path: path.stem)
def test_presets_parse_and_pass_the_checks(preset):
    from absl import flags as absl_flags

    from jnst.cli import flags
    from jnst.config import check_config, check_dream, check_fast, check_texture

    kind = KINDS.get(preset.stem.partition("_")[0], StylizeConfig)
    values = absl_flags.FlagValues()
    flags.define(kind, values)
    flags.parse(values, ["command", f"--flagfile={preset.stem}"])
    config = flags.to_config(kind, values)
    if kind is StylizeConfig:
        check_config(config, count=1)
    elif kind is DreamConfig:
        check_dream(dataclasses.replace(config, image="noise", output="dream.png"))
    elif kind is TextureConfig:
        check_texture(dataclasses.replace(config, image="sample.png", output="texture.png"))
    elif kind is FastConfig:
        check_fast(dataclasses.replace(config, style="a.jpg", photos="photos", output="net.safetensors"))
    else:
        check(config)
        config.check()
    assert config != kind()
    assert f"`{preset.stem}`" in README
    assert preset.read_text().startswith("#")


@pytest.mark.parametrize("path", ["README.md", "weights/README.md", "weights/mini.md", "BUILD.md"])
def test_tables_have_rows_as_wide_as_their_heads(path):
    for table in re.findall(r"(?:^\|.*\n)+", (ROOT / path).read_text(), re.MULTILINE):
        widths = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
        assert len(set(widths)) == 1, table.splitlines()[0]
