"""bin/stylize and bin/test: set-up on first use, and everything that may come in between.

Each test works on a small checkout of its own: the real bin/, a stub jnst, a lock with one small package.
Most put a stand-in for uv on PATH, so that they need no network and end at once; slow ones use pip and uv.
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SHELL_TOOLS = ["cat", "dirname", "readlink", "sed"]  # all that the launcher may count on, besides /bin/sh
VERSION = "0.0.0.dev7"  # no released jnst: an environment of the machine never fits by accident

PYPROJECT = """\
[project]
name = "jnst"
dynamic = ["version"]
requires-python = ">=3.11"
dependencies = [
    "iniconfig>=2",
]

[project.optional-dependencies]
test = ["iniconfig"]

[tool.ruff]
line-length = 110
"""

STYLIZE = """\
import json, os, sys
import iniconfig, jnst
try:
    stdin = sys.stdin.read()
except Exception as error:
    stdin = repr(error)
print(json.dumps({"args": sys.argv[1:], "cwd": os.getcwd(), "python": sys.executable, "jnst": jnst.__file__,
                  "iniconfig": iniconfig.__file__, "stdin": stdin}))
sys.exit(7 if "fail" in sys.argv else 0)
"""

# Notes each call, stops or fails where the test says so, and installs a stub in place of the lock.
UV = """\
#!/bin/sh
echo "$1" >> "$STATE/calls"
for last; do :; done
if [ "$1" = venv ]; then exec "$4" -m venv --without-pip "$last"; fi
if [ -e "$STATE/hang" ]; then echo $$ > "$STATE/hanging"; exec sleep 60; fi
if [ -e "$STATE/slow" ]; then sleep 1; fi
if [ -e "$STATE/fail" ]; then cat "$STATE/fail"; exit 1; fi
for site in "${4%/bin/python}"/lib/python3*/site-packages; do
    mkdir -p "$site/iniconfig" "$site/pytest"
    echo > "$site/iniconfig/__init__.py"
    echo > "$site/pytest/__init__.py"
    echo 'import json, sys; print(json.dumps(sys.argv[1:]))' > "$site/pytest/__main__.py"
done
"""


def lock_entry(name):
    """The lines of requirements.lock for one package."""
    text = (REPO / "requirements.lock").read_text()
    return re.search(rf"^{name}==.*(?:\n .*--hash.*)+\n", text, re.MULTILINE)[0]


class Checkout:
    def __init__(self, folder):
        self.root = folder / "a checkout"
        self.venv = self.root / ".venv"
        self.state = folder / "state"
        self.tools = folder / "tools"
        for path in (self.root / "jnst" / "cli", self.root / "tests", self.state, self.tools):
            path.mkdir(parents=True)
        shutil.copytree(REPO / "bin", self.root / "bin", ignore=shutil.ignore_patterns("__pycache__"))
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        (self.root / "requirements.lock").write_text(lock_entry("iniconfig"))
        (self.root / "jnst" / "__init__.py").touch()
        (self.root / "jnst" / "version.py").write_text(f'__version__ = "{VERSION}"\n')
        (self.root / "jnst" / "cli" / "__init__.py").touch()
        (self.root / "jnst" / "cli" / "stylize.py").write_text(STYLIZE)
        for tool in [*SHELL_TOOLS, "mkdir", "sleep"]:
            (self.tools / tool).symlink_to(shutil.which(tool))
        (self.tools / "python3").symlink_to(os.path.realpath(sys.executable))
        (self.tools / "uv").write_text(UV)
        (self.tools / "uv").chmod(0o755)
        self.env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.env |= {"PATH": str(self.tools), "STATE": str(self.state)}

    def popen(self, *args, command="stylize", path=None, cwd="/", env=(), **options):
        settings = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **options,
        }
        program = path or self.root / "bin" / command
        return subprocess.Popen([program, *args], cwd=cwd, env=self.env | dict(env), text=True, **settings)

    def run(self, *args, status=0, **options):
        """What the command printed, as data, and what the launcher said."""
        process = self.popen(*args, **options)
        out, err = process.communicate(timeout=180)
        assert process.returncode == status, err
        return (json.loads(out) if out else None), err

    def calls(self):
        path = self.state / "calls"
        return path.read_text().split() if path.exists() else []

    def started(self, name="hanging"):
        """Wait until the stand-in for uv has come to where it was told to stop."""
        for _ in range(400):
            if (self.state / name).exists() and (text := (self.state / name).read_text().strip()):
                return int(text)
            time.sleep(0.05)
        raise AssertionError(f"never came to {name}")


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def make_environment(folder, version=VERSION, dependency=""):
    """An environment with jnst of that version installed; returns its bin folder."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "jnst").mkdir()
    (site / "jnst" / "__init__.py").touch()
    (site / "jnst" / "version.py").write_text(f'__version__ = "{version}"\n')
    (site / "iniconfig.py").write_text(dependency)
    return folder / "bin"


def test_first_use_sets_up_and_later_ones_do_not(checkout):
    found, said = checkout.run("a", "b c", "", "--x=*")
    assert found["args"] == ["a", "b c", "", "--x=*"]
    assert found["python"] == str(checkout.venv / "bin" / "python")
    assert found["jnst"] == str(checkout.root / "jnst" / "__init__.py")
    assert found["iniconfig"].startswith(str(checkout.venv))
    assert checkout.calls() == ["venv", "pip"]
    first, second = said.splitlines()
    assert first.startswith("jnst: first use: setting up .venv from requirements.lock")
    assert re.fullmatch(r"jnst: set-up done in \d+ s", second)

    assert checkout.run()[1] == ""
    assert checkout.calls() == ["venv", "pip"]
    # The warm start needs no Python but that of .venv.
    (checkout.tools / "python3").unlink()
    assert checkout.run()[1] == ""


def test_exit_status_and_standard_input_pass_through(checkout):
    checkout.run()
    _, said = checkout.run("fail", status=7)
    assert said == ""
    process = checkout.popen(stdin=subprocess.PIPE)
    assert json.loads(process.communicate("hello")[0])["stdin"] == "hello"


def test_works_from_anywhere_and_through_links(checkout, tmp_path):
    place = tmp_path / "some where"
    place.mkdir()
    (place / "direct").symlink_to(checkout.root / "bin" / "stylize")
    (place / "relative").symlink_to("direct")
    (tmp_path / "parent").symlink_to(checkout.root.parent / "a checkout" / "bin")
    checkout.run()
    for path in (place / "direct", place / "relative", tmp_path / "parent" / "stylize", "./relative"):
        found, said = checkout.run(path=path, cwd=place)
        assert (found["cwd"], found["python"], said) == (
            str(place),
            str(checkout.venv / "bin" / "python"),
            "",
        )
    found, _ = checkout.run(path="bin/stylize", cwd=checkout.root)
    assert found["cwd"] == str(checkout.root)
    assert checkout.calls() == ["venv", "pip"]


def test_closed_standard_input(checkout):
    for _ in range(2):  # with set-up, and without
        script = f'exec "{checkout.root}/bin/stylize" <&-'
        found, _ = checkout.run("-c", script, path="/bin/sh", stdin=None)
        assert found["stdin"] == ""


def test_closed_standard_streams(checkout):
    (checkout.root / "jnst" / "cli" / "stylize.py").write_text(
        "import os, sys\n"
        "open(os.environ['STATE'] + '/streams', 'w').write(repr(None in (sys.stdin, sys.stdout, sys.stderr)))"
    )
    for _ in range(2):
        checkout.run("-c", f'exec "{checkout.root}/bin/stylize" <&- >&- 2>&-', path="/bin/sh")
        assert (checkout.state / "streams").read_text() == "False"
    assert checkout.calls() == ["venv", "pip"]


def test_environment_is_the_users_own(checkout):
    checkout.run()
    (checkout.root / "jnst" / "cli" / "stylize.py").write_text(
        "import json, os\n"
        "print(json.dumps([os.environ.get(name) for name in ('PYTHONPATH', 'PYTHONDONTWRITEBYTECODE')]))"
    )
    expected = [f"{checkout.root}:/nowhere", os.environ.get("PYTHONDONTWRITEBYTECODE")]
    assert checkout.run(env={"PYTHONPATH": "/nowhere"})[0] == expected


def test_python_of_the_environment_imports_jnst_from_anywhere(checkout):
    checkout.run()
    shown = subprocess.check_output(
        [checkout.venv / "bin" / "python", "-c", "import jnst; print(jnst.__file__)"],
        cwd="/",
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},  # which bin/test sets
    )
    assert shown.strip() == str(checkout.root / "jnst" / "__init__.py")


@pytest.mark.slow
def test_moved_checkout_is_used_without_set_up(checkout, tmp_path):
    checkout.run()
    checkout.root = checkout.root.rename(tmp_path / "moved")
    checkout.venv = checkout.root / ".venv"
    found, said = checkout.run()
    assert said == ""
    assert found["python"] == str(checkout.venv / "bin" / "python")
    assert checkout.calls() == ["venv", "pip"]
    test_python_of_the_environment_imports_jnst_from_anywhere(checkout)
    (checkout.tools / "python3").unlink()  # the stamp has been renewed: warm again
    checkout.run()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_changed_requirements_refresh(checkout, name):
    checkout.run()
    (checkout.venv / "left over").touch()
    path = checkout.root / name
    path.write_text(path.read_text().replace("iniconfig>=2", "iniconfig>=2.0") + "# changed\n")
    _, said = checkout.run()
    assert said.startswith("jnst: the requirements changed: setting up .venv")
    assert checkout.calls() == ["venv", "pip"] * 2
    assert not (checkout.venv / "left over").exists()
    assert checkout.run()[1] == ""


def test_other_changes_of_pyproject_do_not_refresh(checkout):
    checkout.run()
    path = checkout.root / "pyproject.toml"
    path.write_text(path.read_text().replace("110", "100"))
    assert checkout.run()[1] == ""


@pytest.mark.slow
def test_changed_lock_refreshes_even_from_within_the_environment(checkout):
    checkout.run()
    with (checkout.root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    _, said = checkout.run(env={"PATH": f"{checkout.venv}/bin:{checkout.tools}"})
    assert "requirements changed" in said


@pytest.mark.slow
def test_lock_that_lacks_a_dependency_is_named_before_anything_is_removed(checkout):
    checkout.run()
    path = checkout.root / "pyproject.toml"
    path.write_text(path.read_text().replace('"iniconfig>=2"', '"iniconfig>=2",\n    "flit_core"'))
    _, said = checkout.run(status=1)
    assert "requirements.lock lacks flit-core" in said
    assert (checkout.venv / "jnst-stamp").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_set_up_leaves_no_harm(checkout, number):
    (checkout.state / "hang").touch()
    process = checkout.popen()
    child = checkout.started()
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number
    if sys.platform == "linux":  # the installer must not go on writing into .venv
        for _ in range(100):
            if not Path(f"/proc/{child}").exists():
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the installer outlived the set-up")
    (checkout.state / "hang").unlink()
    found, said = checkout.run()
    assert "an earlier set-up did not end" in said
    assert found["iniconfig"].startswith(str(checkout.venv))
    assert checkout.run()[1] == ""


@pytest.mark.slow
def test_killed_refresh_leaves_no_harm(checkout):
    checkout.run()
    lock = checkout.root / "requirements.lock"
    before = lock.read_text()
    lock.write_text(before + "# changed\n")
    (checkout.state / "hang").touch()
    process = checkout.popen()
    checkout.started()
    process.kill()
    process.communicate()
    (checkout.state / "hang").unlink()
    lock.write_text(before)  # the old stamp must not count for what is left of the environment
    assert "an earlier set-up did not end" in checkout.run()[1]


def test_refresh_killed_while_it_removes_the_old_environment(checkout, monkeypatch):
    checkout.run()
    spec = importlib.util.spec_from_file_location("_setup", checkout.root / "bin" / "_setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    seen = []
    monkeypatch.setattr(module.Setup, "clear", lambda self: seen.append([self.stamp.exists(), self.marker.exists()]))
    monkeypatch.setattr(module.Setup, "step", lambda self, *command: None)
    module.Setup(checkout.root, "stylize", "changed").make()
    assert seen == [[False, True]]  # half removed, it is neither up to date nor somebody else's


@pytest.mark.slow
def test_interrupt_ends_the_set_up_quietly(checkout):
    (checkout.state / "hang").touch()
    process = checkout.popen(start_new_session=True)
    checkout.started()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.splitlines()[1:] == ["jnst: set-up interrupted"]
    (checkout.state / "hang").unlink()
    checkout.run()


@pytest.mark.slow
def test_two_starts_at_once_make_one_set_up(checkout):
    (checkout.state / "slow").touch()
    processes = [checkout.popen(str(number)) for number in range(3)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert sorted(json.loads(out)["args"] for out, _ in results) == [["0"], ["1"], ["2"]]
    assert checkout.calls() == ["venv", "pip"]
    said = sorted(err.splitlines()[0] for _, err in results if err)
    assert "first use" in said[-1]
    assert set(said[:-1]) == {"jnst: another set-up of .venv is running, waiting for it..."}


@pytest.mark.slow
def test_what_the_command_leaves_running_does_not_hold_the_lock(checkout):
    (checkout.root / "jnst" / "cli" / "stylize.py").write_text(
        "import subprocess\n"
        "quiet = subprocess.DEVNULL\n"
        "p = subprocess.Popen(['sleep', '8'], close_fds=False, stdin=quiet, stdout=quiet, stderr=quiet)\n"
        "print(p.pid)"
    )
    pid, _ = checkout.run()
    with (checkout.root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    _, said = checkout.run()
    os.kill(pid, 0)  # still there
    assert "waiting" not in said


@pytest.mark.slow
def test_failed_set_up_shows_why_and_is_tried_again(checkout):
    (checkout.state / "fail").write_text("something odd\n")
    _, said = checkout.run(status=1)
    assert said.splitlines()[1] == "something odd"
    assert said.splitlines()[2].startswith("jnst: set-up failed")
    (checkout.state / "fail").write_text("error: Failed to fetch: connection refused\n")
    _, said = checkout.run(status=2)
    assert "index" in said.splitlines()[-1]
    (checkout.state / "fail").unlink()
    checkout.run()


def test_no_python(checkout):
    for name in ("python3", "uv"):
        (checkout.tools / name).unlink()
    _, said = checkout.run(status=2)
    assert said == "jnst: needs Python 3.11 to 3.14 (or uv, which can supply it)\n"
    assert not checkout.venv.exists()


def test_old_python_is_passed_over(checkout):
    (checkout.tools / "python3.12").symlink_to((checkout.tools / "python3").readlink())
    (checkout.tools / "python3").unlink()
    (checkout.tools / "python3").write_text("#!/bin/sh\nexit 1\n")
    (checkout.tools / "python3").chmod(0o755)
    assert checkout.run()[0]["python"] == str(checkout.venv / "bin" / "python")


def test_python_from_uv(checkout):
    target = (checkout.tools / "python3").readlink()
    (checkout.tools / "python3").unlink()
    supply = f'if [ "$1" = python ]; then [ "$2" != find ] || echo "{target}"; exit; fi\n'
    (checkout.tools / "uv").write_text(UV.replace("for last", supply + "for last"))
    _, said = checkout.run()
    assert said.startswith("jnst: no Python 3.11 to 3.14 found, asking uv for one\n")
    assert checkout.calls() == ["python", "python", "venv", "pip"]


def test_environment_that_fits_is_used_and_nothing_is_made(checkout, tmp_path):
    path = make_environment(tmp_path / "ambient")
    before = sorted(checkout.root.rglob("*"))
    found, said = checkout.run("x", env={"PATH": f"{path}:{checkout.tools}", "PYTHONDONTWRITEBYTECODE": "1"})
    assert said == ""
    assert found["python"] == str(path / "python3")
    assert found["jnst"] == str(checkout.root / "jnst" / "__init__.py")
    assert sorted(checkout.root.rglob("*")) == before


@pytest.mark.parametrize("flaw", [{"version": "0.0.0.dev6"}, {"dependency": "import nothing_here"}])
def test_environment_that_does_not_fit_is_not_used(checkout, tmp_path, flaw):
    path = make_environment(tmp_path / "ambient", **flaw)
    found, _ = checkout.run(env={"PATH": f"{path}:{checkout.tools}"})
    assert found["python"] == str(checkout.venv / "bin" / "python")


def test_environment_without_pytest_is_not_used_for_the_tests(checkout, tmp_path):
    path = make_environment(tmp_path / "ambient")
    for name in ("pyproject.toml", "requirements.lock"):
        file = checkout.root / name
        extra = lock_entry("pytest") if name.endswith("lock") else ""
        file.write_text(file.read_text().replace('test = ["iniconfig"]', 'test = ["pytest"]') + extra)
    checkout.run(command="test", env={"PATH": f"{path}:{checkout.tools}"})
    assert checkout.venv.exists()


def test_checkout_itself_does_not_count_as_installed(checkout, tmp_path):
    path = make_environment(tmp_path / "ambient")
    shutil.rmtree(next((tmp_path / "ambient").glob("lib/python3*/site-packages/jnst")))
    env = {"PATH": f"{path}:{checkout.tools}", "PYTHONPATH": str(checkout.root)}
    found, _ = checkout.run(env=env, cwd=checkout.root)
    assert found["python"] == str(checkout.venv / "bin" / "python")


def test_environment_of_somebody_else_that_fits_is_used_as_it_is(checkout):
    make_environment(checkout.venv)
    before = sorted(checkout.venv.rglob("*"))
    found, said = checkout.run(env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert (found["python"], said) == (str(checkout.venv / "bin" / "python"), "")
    assert sorted(checkout.venv.rglob("*")) == before


@pytest.mark.slow
def test_environment_of_somebody_else_is_never_deleted(checkout):
    make_environment(checkout.venv, version="0.0.0.dev6")
    keep = checkout.venv / "keep"
    keep.touch()
    assert "installing requirements.lock into the .venv that was there" in checkout.run()[1]
    assert checkout.run()[1] == ""
    with (checkout.root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    (checkout.state / "fail").write_text("no\n")
    checkout.run(status=1)
    (checkout.state / "fail").unlink()
    assert "installing" in checkout.run()[1]
    assert keep.exists()
    assert checkout.calls() == ["pip"] * 3


@pytest.mark.slow
def test_folder_that_is_no_environment_is_left_alone(checkout):
    checkout.venv.mkdir()
    (checkout.venv / "keep").touch()
    _, said = checkout.run(status=2)
    assert "please move it away" in said
    assert [path.name for path in checkout.venv.iterdir()] == ["keep"]
    shutil.rmtree(checkout.venv)
    checkout.venv.touch()
    assert "not a folder" in checkout.run(status=2)[1]
    checkout.venv.unlink()
    checkout.venv.mkdir()  # an empty one holds nothing to lose
    checkout.run()


@pytest.mark.slow
def test_environment_whose_python_is_gone_is_made_anew(checkout):
    checkout.run()
    for path in (checkout.venv / "bin").glob("python*"):
        path.unlink()
    checkout.run()
    assert checkout.calls() == ["venv", "pip"] * 2


def test_bin_test_hands_its_arguments_to_pytest(checkout):
    root = str(checkout.root)
    (checkout.root / "tests" / "test_a.py").touch()
    fixed = [
        f"--rootdir={root}",
        "-c",
        f"{root}/pyproject.toml",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        "--max-worker-restart=0",
    ]
    tests = f"{root}/tests"

    def args(*given, cwd="/"):
        return checkout.run(*given, command="test", cwd=cwd)[0]

    assert args() == [*fixed, tests]
    assert args("--fast") == [*fixed, "-m", "not slow", tests]
    assert args("-x", "--fast", "-k", "a b") == [*fixed, "-x", "-m", "not slow", "-k", "a b", tests]
    assert args("tests/test_a.py", cwd=root) == [*fixed, "tests/test_a.py"]
    assert args("tests/test_a.py::test_b", "-q", cwd=root) == [*fixed, "tests/test_a.py::test_b", "-q"]
    assert args("tests", cwd=root) == [*fixed, "tests"]


# With pip and uv themselves


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Skips where no package can be had from the index at all."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "lock").write_text(lock_entry("iniconfig"))
    if shutil.which("uv"):
        command = ["uv", "pip", "install", "--python", sys.executable, "--target", folder / "packages"]
    else:
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        command = [folder / "venv" / "bin" / "python", "-m", "pip", "download", "--dest", folder]
    done = subprocess.run([*command, "-r", folder / "lock"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("the package index cannot be reached")


@pytest.fixture(params=["pip", "uv"])
def real(request, checkout, index):
    """A checkout that is set up for real, by pip or by uv."""
    (checkout.tools / "uv").unlink()
    if request.param == "uv":
        if not shutil.which("uv"):
            pytest.skip("uv is not installed here")
        (checkout.tools / "uv").symlink_to(shutil.which("uv"))
    return checkout


NO_NETWORK = {
    "PIP_NO_INDEX": "1",
    "UV_OFFLINE": "1",
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"),
}


@pytest.mark.slow
def test_real_first_use_then_offline_then_refresh(real):
    found, _ = real.run()
    assert found["iniconfig"].startswith(str(real.venv))
    found, said = real.run(env=NO_NETWORK)
    assert said == ""
    assert found["iniconfig"].startswith(str(real.venv))
    (real.root / "requirements.lock").write_text(lock_entry("iniconfig") + lock_entry("packaging"))
    assert "requirements changed" in real.run()[1]
    subprocess.run([real.venv / "bin" / "python", "-c", "import packaging"], check=True)


@pytest.mark.slow
def test_real_tampered_hash_fails(real):
    lock = real.root / "requirements.lock"
    lock.write_text(re.sub(r"sha256:\w{8}", "sha256:00000000", lock.read_text()))
    assert "a package is not the one that requirements.lock names" in real.run(status=1)[1]
    assert not (real.venv / "jnst-stamp").exists()


@pytest.mark.slow
def test_real_set_up_without_network_says_so(real, tmp_path):
    nothing = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_CACHE_DIR": str(tmp_path / "cache")}
    _, said = real.run(status=2, env=NO_NETWORK | nothing | {"UV_CACHE_DIR": str(tmp_path / "cache")})
    assert "no use of the package index" in said.splitlines()[-1]


@pytest.mark.slow
def test_real_set_up_killed_half_way(real):
    process = real.popen()
    for _ in range(400):
        if (real.venv / "pyvenv.cfg").exists():
            break
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (real.venv / "jnst-stamp").exists()
    found, said = real.run()
    assert "an earlier set-up did not end" in said
    assert found["iniconfig"].startswith(str(real.venv))
    assert real.run(env=NO_NETWORK)[1] == ""


# The files themselves


def test_lock_is_hashed_and_covers_the_dependencies():
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    locked = dict(re.findall(r"^([\w.-]+)==(\S+).*\n +--hash=sha256:[0-9a-f]{64}\b", lock_text(), re.MULTILINE))
    assert len(locked) == len(re.findall(r"^\w", lock_text(), re.MULTILINE))
    for line in project["dependencies"] + project["optional-dependencies"]["test"]:
        wanted = requirements.Requirement(line)
        assert wanted.specifier.contains(locked[wanted.name]), line


def lock_text():
    return (REPO / "requirements.lock").read_text()


def tracked():
    """The files of the repository, or of an unpacked source archive."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPO, capture_output=True
    )
    if listed.returncode == 0 and listed.stdout:
        paths = [REPO / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    else:
        left_out = {".venv", ".venv-bench", ".git", "out"}
        paths = [path for path in REPO.rglob("*") if not left_out & set(path.relative_to(REPO).parts)]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def test_no_file_names_a_registry_host():
    hosts = [b"py" + b"pi.org", b"files.python" + b"hosted", b"py" + b"pi.python"]
    options = [b"index" + b"-url", b"find" + b"-links", b"trusted" + b"-host"]
    files = tracked()
    assert REPO / "requirements.lock" in files
    for path in files:
        content = path.read_bytes()
        if b"\0" in content:
            continue
        name = str(path.relative_to(REPO))
        setting_up = name in ("requirements.lock", "pyproject.toml") or name.startswith(("bin/", ".ci/"))
        for word in hosts + (options if setting_up else []):
            assert word not in content, f"{name} names {word.decode()}"
    assert not re.search(r"https?:|^\s*-(?!-hash)|file:|@ ", lock_text(), re.MULTILINE)
