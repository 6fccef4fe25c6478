"""bin/bench: its own environment, .venv-bench, with PyTorch for the CPU. On small checkouts, as in test_launcher.py."""

import importlib.util
import os
import sys

import pytest
from test_launcher import PYPROJECT, REPO, UV, Checkout, make_environment

BENCH = """\
import json, os, sys
import torch, jnst
print(json.dumps({"args": sys.argv[1:], "python": sys.executable, "torch": torch.__file__, "jnst": jnst.__file__,
                  "safe_path": sys.flags.safe_path, "pages": os.environ.get("GLIBC_TUNABLES")}))
sys.exit(7 if "fail" in sys.argv else 0)
"""

# The stand-in for uv brings one for pip: it offers what the test says, and notes what it is asked to install.
PIP = """\
import os, sys, pathlib
state = pathlib.Path(os.environ["STATE"])
if "index" in sys.argv:
    if not (state / "offered").exists():
        sys.exit("ERROR: No matching distribution found for torch")
    print("torch (9.9)")
    print("Available versions: " + (state / "offered").read_text())
else:
    with open(state / "pip", "a") as file:
        file.write(sys.argv[-1] + "\\n")
    if (state / "broken").exists():
        sys.exit("ERROR: no space left")
    (pathlib.Path(__file__).parent.parent / "torch.py").touch()
"""
UV_WITH_PIP = UV.replace(
    "done\n",
    'mkdir -p "$site/pip"; echo > "$site/pip/__init__.py"; cp "$STATE/fake_pip" "$site/pip/__main__.py"\ndone\n',
)
assert "fake_pip" in UV_WITH_PIP


@pytest.fixture
def checkout(tmp_path):
    made = Checkout(tmp_path)
    made.bench = made.root / ".venv-bench"
    extra = 'bench = ["torch>=2.13,<2.14"]\n'
    (made.root / "pyproject.toml").write_text(PYPROJECT.replace("\n[tool.ruff]", extra + "\n[tool.ruff]"))
    (made.root / "benchmarks").mkdir()
    (made.root / "benchmarks" / "bench.py").write_text(BENCH)
    (made.state / "fake_pip").write_text(PIP)
    (made.tools / "uv").write_text(UV_WITH_PIP)
    (made.tools / "cp").symlink_to("/bin/cp")
    offer(made, "2.15.0, 2.13.1+cu130, 2.13.1+cpu, 2.13.1, 2.13.0+cpu, 2.13.0, 2.12.1+cpu")
    return made


def offer(checkout, versions):
    (checkout.state / "offered").write_text(versions + "\n")


def installed(checkout):
    path = checkout.state / "pip"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.slow
def test_first_use_makes_an_environment_of_its_own_and_later_ones_do_not(checkout):
    found, said = checkout.run("step", "--a=b c", command="bench")
    assert found["args"] == ["step", "--a=b c"]
    assert found["python"] == str(checkout.bench / "bin" / "python")
    assert found["torch"].startswith(str(checkout.bench))
    assert found["jnst"] == str(checkout.root / "jnst" / "__init__.py")
    assert (found["safe_path"], found["pages"]) == (True, "glibc.malloc.hugetlb=1")
    first, last = said.splitlines()
    assert first.startswith("jnst: first use: setting up .venv-bench from requirements.lock and PyTorch (")
    assert last.startswith("jnst: set-up done in ")
    assert not checkout.venv.exists()
    assert installed(checkout) == ["torch==2.13.1+cpu"]  # not the one for GPUs, which sorts above it

    (checkout.tools / "python3").unlink()  # the warm start needs no Python but that of .venv-bench
    assert checkout.run(command="bench")[1] == ""
    assert checkout.run("fail", command="bench", status=7)[1] == ""
    assert len(installed(checkout)) == 1


@pytest.mark.slow
def test_other_commands_have_nothing_of_it(checkout):
    checkout.run(command="bench")
    found, _ = checkout.run(env={"PATH": f"{checkout.bench}/bin:{checkout.tools}"})
    assert found["python"] == str(checkout.venv / "bin" / "python")
    path = checkout.root / "pyproject.toml"
    path.write_text(path.read_text().replace("torch>=2.13", "torch>=2.13.0"))
    assert checkout.run()[1] == ""
    assert "requirements changed: setting up .venv-bench" in checkout.run(command="bench")[1]
    assert b"torch" not in (checkout.venv / "jnst-stamp").read_bytes()


@pytest.mark.slow
def test_where_no_build_for_the_cpu_is_offered_the_usual_one_is_taken(checkout):
    offer(checkout, "2.14.0, 2.13.0, 2.13.0rc1, 2.12.0+cpu")
    _, said = checkout.run(command="bench")
    assert installed(checkout) == ["torch>=2.13,<2.14"]
    assert ("no build of PyTorch for the CPU alone" in said) == (sys.platform == "linux")


@pytest.mark.slow
@pytest.mark.parametrize("offered", [None, "2.15.0, 2.12.0"])
def test_where_torch_is_not_to_be_had_one_line_says_so(checkout, offered):
    before = (checkout.state / "offered").read_text()
    (checkout.state / "offered").unlink()
    if offered:
        offer(checkout, offered)
    _, said = checkout.run(command="bench", status=2)
    _, line = said.splitlines()
    assert line.startswith("jnst: set-up failed: torch>=2.13,<2.14, which bin/bench needs, is not to be had here")
    assert not (checkout.bench / "jnst-stamp").exists()
    offer(checkout, before)
    assert "an earlier set-up did not end" in checkout.run(command="bench")[1]


@pytest.mark.slow
def test_torch_that_cannot_be_installed_is_one_line_too(checkout):
    (checkout.state / "broken").touch()
    _, said = checkout.run(command="bench", status=2)
    _, line = said.splitlines()
    assert "torch==2.13.1+cpu is offered but cannot be installed" in line
    assert "no space left" in (checkout.bench / "jnst-log").read_text()
    assert not (checkout.bench / "jnst-stamp").exists()


@pytest.mark.slow
def test_environment_that_has_all_is_used(checkout, tmp_path):
    path = make_environment(tmp_path / "ambient")
    env = {"PATH": f"{path}:{checkout.tools}", "PYTHONDONTWRITEBYTECODE": "1"}
    (site,) = (tmp_path / "ambient").glob("lib/python3*/site-packages")
    (site / "torch.py").touch()
    found, said = checkout.run(command="bench", env=env)
    assert (found["python"], said) == (str(path / "python3"), "")
    assert not checkout.bench.exists()
    (site / "torch.py").unlink()  # all else is there, as for the other commands
    assert checkout.run(env=env)[0]["python"] == str(path / "python3")
    assert checkout.run(command="bench", env=env)[0]["python"] == str(checkout.bench / "bin" / "python")


@pytest.mark.slow
def test_environment_of_somebody_else_is_installed_into(checkout):
    make_environment(checkout.bench)
    (checkout.bench / "keep").touch()
    _, said = checkout.run(command="bench")
    assert "installing requirements.lock and PyTorch into the .venv-bench that was there" in said
    assert (checkout.bench / "keep").exists()
    assert checkout.run(command="bench")[1] == ""


def test_the_real_extra_is_one_requirement_that_can_be_read():
    spec = importlib.util.spec_from_file_location("_setup", REPO / "bin" / "_setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    assert setup.required(REPO, "bench") == [*setup.required(REPO, "stylize"), "torch"]
    line = "torch>=2.13,<2.14"
    assert f'bench = ["{line}"]' in (REPO / "pyproject.toml").read_text().splitlines()
    fitting = ["2.13.0", "2.13.0+cpu", "2.13.1+cu130"]
    assert [
        each for each in [*fitting, "2.12.9", "2.14.0", "2.14.0+cpu", "2.13.0rc1"] if setup.in_range(each, line)
    ] == fitting


def test_its_environment_is_not_tracked():
    assert ".venv-bench/" in (REPO / ".gitignore").read_text().splitlines()
    assert os.access(REPO / "bin" / "bench", os.X_OK)
