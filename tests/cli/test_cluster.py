"""Several processes: real ones, on loopback, some of them killed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from cli.command import ROOT, assert_one_line, read_until
from jnst.cli import cluster
from jnst.errors import InputError

QUICK = {"BEAT": 0.3, "GRACE": 1.0, "PATIENCE": 20}
HAND = "expected --coordinator_address, --num_processes and --process_id, or --num_processes=1"


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """These tests may themselves run in a job of a cluster."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "PMI_", "KUBERNETES_", "JOB_COMPLETION", "JAX_", "TPU_", "MEGASCALE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


@pytest.fixture
def start():
    """Starts processes and ends those that are left."""
    with contextlib.ExitStack() as stack:

        def one(folder, work="nothing", mask=(0, 1), environment=None, **options):
            argument = json.dumps({"folder": str(folder), "mask": mask, "work": work, **options})
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("cluster_process.py")), argument],
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield one


def _port():
    with socket.socket() as bound:
        bound.bind(("", 0))
        return bound.getsockname()[1]


def _pair(start, folder, works, **options):
    """Two processes, both at work."""
    pair = _start_pair(start, folder, works, **options)
    for process in pair:
        read_until(process.stdout, "agreed")
    return pair


def _start_pair(start, folder, works, by_hand=False, **options):
    address = f"127.0.0.1:{_port()}"
    pair = []
    for index, work in enumerate(works):
        place = {"flags": [address, 2, index]} if by_hand else {"index": index, "count": 2}
        pair.append(start(folder, work, **place, **options))
    return pair


def _assert_it_ends(process, *words, since, seconds=30):
    """With one line, and nothing of the runtime's own."""
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - since < seconds
    assert_one_line(err, *words, "what is finished stays; go on with: bin/grid --process_id=")
    assert process.returncode == cluster.LOST, (out, err)


# ---- A lost process


@pytest.mark.slow
def test_a_killed_process_is_named_and_the_other_one_ends(start, tmp_path):
    """The whole way by jax's runtime and with the real delays: once process 0 is killed, once the other one."""
    computing = _start_pair(start, tmp_path / "one", ["hold", "compute"], by_hand=True)
    waiting = _start_pair(start, tmp_path / "other", ["nothing", "hold"], by_hand=True)
    for process in (*computing, *waiting):
        read_until(process.stdout, "agreed")
    since = time.monotonic()
    for killed, pair in enumerate((computing, waiting)):
        pair[killed].send_signal(signal.SIGKILL)
    for killed, pair in enumerate((computing, waiting)):
        words = f"process {killed} (host {socket.gethostname()}, pid {pair[killed].pid}) is lost"
        _assert_it_ends(pair[1 - killed], words, since=since)


@pytest.mark.slow
def test_compiling_is_no_loss_and_keeps_no_process_from_ending(start, tmp_path):
    pair = _pair(start, tmp_path, ["hold", "compile"], constants=QUICK | {"BEAT": 0.5})
    read_until(pair[1].stdout, "compiling")
    time.sleep(2 * cluster.MISSES * 0.5)
    assert [process.poll() for process in pair] == [None, None]
    since = time.monotonic()
    pair[0].kill()
    _assert_it_ends(pair[1], "process 0", "is lost", since=since)


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "survivor"), [(1, "sleep"), (0, "hold"), (0, "nothing"), (1, "nothing")])
def test_a_loss_is_noticed_wherever_the_other_one_is(start, tmp_path, killed, survivor):
    works = ["hold", "hold"]
    works[1 - killed] = survivor
    pair = _pair(start, tmp_path, works, constants=QUICK)
    since = time.monotonic()
    pair[killed].kill()
    _assert_it_ends(pair[1 - killed], f"process {killed}", f"pid {pair[killed].pid}) is lost", since=since)


@pytest.mark.slow
def test_all_others_learn_of_a_loss(start, tmp_path):
    three = [start(tmp_path, "sleep", index=index, count=3, constants=QUICK) for index in range(3)]
    for process in three:
        read_until(process.stdout, "agreed")
    since = time.monotonic()
    three[2].kill()
    for survivor in three[:2]:
        _assert_it_ends(survivor, f"process 2 (host {socket.gethostname()}, pid {three[2].pid}) is lost", since=since)


@pytest.mark.slow
@pytest.mark.parametrize("leaver", [0, 1])
def test_a_mistake_in_one_process_ends_the_others(start, tmp_path, leaver):
    works = ["sleep", "sleep"]
    works[leaver] = "fail"
    pair = _pair(start, tmp_path, works, constants=QUICK)
    _assert_it_ends(pair[1 - leaver], f"process {leaver}", "stopped early", since=time.monotonic())
    assert_one_line(pair[leaver].communicate(timeout=60)[1], "--axis=nonsense")
    assert pair[leaver].returncode == 2


@pytest.mark.slow
def test_ctrl_c_in_one_process_ends_the_others(start, tmp_path):
    pair = _pair(start, tmp_path, ["hold", "hold"], constants=QUICK)
    since = time.monotonic()
    pair[0].send_signal(signal.SIGINT)
    _assert_it_ends(pair[1], "process 0", f"pid {pair[0].pid}) stopped early", since=since)
    assert pair[0].wait(60) == 130


@pytest.mark.slow
def test_files_of_a_killed_session_confuse_nobody(start, tmp_path):
    for process in _pair(start, tmp_path, ["hold", "hold"], constants=QUICK):
        process.kill()
        process.wait()
    assert (tmp_path / ".grid").is_dir()
    pair = _pair(start, tmp_path, ["nothing", "nothing"], constants=QUICK)
    for process in pair:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, ""), out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_process_that_was_started_again_is_not_the_one_before(start, tmp_path):
    pair = _pair(start, tmp_path, ["sleep", "hold"], constants=QUICK)
    since = time.monotonic()
    pair[1].kill()
    again = start(tmp_path, index=1, count=2, constants=QUICK)
    _assert_it_ends(pair[0], f"pid {pair[1].pid}) is lost", since=since)
    again.kill()


# ---- Agreement, in threads of this process


@pytest.fixture
def quick(monkeypatch):
    for name, value in QUICK.items():
        monkeypatch.setattr(cluster, name, value)


def _together(folders, masks, counts=None, runs=None):
    """What each of several watches answers or raises."""
    counts = counts or [len(masks)] * len(masks)
    runs = runs or [""] * len(masks)
    answers = [None] * len(masks)

    def one(index):
        try:
            with cluster.Watch(
                cluster.Cluster(index, counts[index]), folders[index], "bin/grid", lambda: None
            ) as watch:
                first = watch.agree(masks[index], runs[index])
                second = watch.agree(~np.asarray(masks[index]), runs[index])
                watch.wait()
            answers[index] = first, second
        except (InputError, SystemExit) as error:
            answers[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(masks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("size", [0, 1, 8, 21])
def test_all_get_what_process_0_saw(quick, tmp_path, count, size):
    rng = np.random.default_rng(size)
    masks = [rng.random(size) < 0.5 for _ in range(count)]
    for first, second in _together([tmp_path / "new" / "folder"] * count, masks):
        assert first.dtype == second.dtype == bool
        np.testing.assert_array_equal(first, masks[0])
        np.testing.assert_array_equal(second, ~masks[0])
    assert not (tmp_path / "new" / "folder" / ".grid").exists()


def test_one_process_alone_writes_nothing(tmp_path):
    folder = tmp_path / "none"
    assert not isinstance(_together([folder], [np.ones(3, bool)])[0], Exception)
    assert not folder.exists()


@pytest.mark.slow
def test_folders_that_are_not_shared_are_named(quick, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    folders = [tmp_path / "one", tmp_path / "other"]
    for index, error in enumerate(_together(folders, [np.ones(3, bool)] * 2)):
        assert isinstance(error, InputError)
        assert str(folders[index]) in str(error)
        assert f"no sign in it of process {1 - index}; expected a folder that all processes share" in str(error)


def test_a_folder_that_cannot_be_written_is_named(quick, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file.*: cannot be written"):
        cluster.Watch(cluster.Cluster(0, 2), tmp_path / "file" / "out", "bin/grid", lambda: None).__enter__()


@pytest.mark.slow
def test_as_many_other_runs_are_an_error_too(quick, capsys, tmp_path):
    answers = _together([tmp_path] * 2, [np.ones(3, bool)] * 2, runs=["these", "those"])
    assert isinstance(answers[0], SystemExit)
    assert str(answers[1]) == "process 0 has other flags or files than this one; expected the same in all"


@pytest.mark.slow
def test_other_runs_in_another_process_are_an_error(quick, capsys, tmp_path):
    answers = _together([tmp_path] * 2, [np.ones(3, bool), np.ones(4, bool)])
    assert isinstance(answers[0], SystemExit)
    assert answers[0].code == cluster.LOST
    assert isinstance(answers[1], InputError)
    assert "process 0 has 3 runs, this one 4" in str(answers[1])
    assert_one_line(capsys.readouterr().err, "process 1", "stopped early")


def test_other_counts_are_an_error(quick, tmp_path):
    answers = _together([tmp_path] * 2, [np.ones(3, bool)] * 2, counts=[2, 3])
    assert all(isinstance(error, InputError) and "--num_processes=" in str(error) for error in answers)


# ---- Joining by hand


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("", 0, -1), "--num_processes=0: expected how many"),
        (("host:1", -1, 0), "--num_processes is missing: expected how many"),
        (("host:1", 2, -1), "--process_id=-1: expected 0 to 1"),
        (("host:1", 2, 2), "--process_id=2: expected 0 to 1"),
        (("", 1, 1), "--process_id=1: expected 0 to 0"),
        (("", 2, 0), "--coordinator_address=: expected HOST:PORT"),
        (("host", 2, 0), "--coordinator_address=host: expected HOST:PORT"),
        (("host:0", 2, 0), "--coordinator_address=host:0: expected HOST:PORT"),
        (("host:65536", 2, 1), "--coordinator_address=host:65536: expected HOST:PORT"),
    ],
)
def test_bad_flags_are_named(flags, words):
    with pytest.raises(InputError) as caught:
        cluster.join(*flags)
    assert words in str(caught.value)


@pytest.mark.slow
def test_who_cannot_join_gets_one_line_instead_of_a_stack_trace(start):
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("", 0))
        taken.listen()
        in_use, twice = taken.getsockname()[1], _port()
        mistakes = [(in_use, 0), (twice, 0), (twice, 0)]  # and nobody comes to the one that stays
        tries = [start("", flags=[f"127.0.0.1:{port}", 2, n], constants={"PATIENCE": 1}) for port, n in mistakes]
        for process, (port, n) in zip(tries, mistakes, strict=True):
            words = f"process {n} of 2 could not meet the others at 127.0.0.1:{port} ("
            assert_one_line(process.communicate(timeout=60)[1], words)
            assert process.returncode == 2


# ---- Joining by the environment that jax reads


def _slurm(index, port):
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_NODELIST": "127.0.0.1,elsewhere",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": "0",
        "JAX_COORDINATOR_PORT": str(port),
    }


def _open_mpi(index, port):
    return {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1,10.96.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(index),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(index),
        "JAX_COORDINATOR_PORT": str(port),
    }


def _tpu_of_kubernetes(index, port):
    return {
        "JAX_FORCE_TPU_INIT": "1",  # as on a machine with chips
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "127.0.0.1,elsewhere",
        "TPU_WORKER_ID": str(index),
        "MEGASCALE_COORDINATOR_ADDRESS": "127.0.0.1",
        "MEGASCALE_NUM_SLICES": "1",
        "MEGASCALE_SLICE_ID": "0",
        "JAX_COORDINATOR_PORT": str(port),
    }


@pytest.mark.slow
@pytest.mark.parametrize("environment", [_slurm, _open_mpi, _tpu_of_kubernetes])
def test_processes_of_a_launcher_find_each_other(start, environment):
    port = _port()
    pair = [start("", flags=[], environment=environment(index, port)) for index in range(2)]
    for index, process in enumerate(pair):
        out, err = process.communicate(timeout=60)
        assert f"joined {index} of 2" in out.splitlines(), err
        assert (process.returncode, err) == (0, "")


@pytest.fixture
def met(monkeypatch):
    """What would have been joined; nobody is there."""
    calls = []
    monkeypatch.setattr(cluster, "_join_runtime", lambda *place: calls.append(place))
    monkeypatch.setattr(cluster, "_restrict", calls.append)
    return calls


def _set(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


SHELL_OF_SLURM = _slurm(0, 1) | {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}
ONE_TASK = {name: value for name, value in _slurm(0, 1).items() if name != "SLURM_STEP_NUM_TASKS"} | {
    "SLURM_NTASKS": "1"
}


@pytest.mark.parametrize(
    ("environment", "flags"),
    [
        ({}, ()),
        ({}, ("", 1, -1)),
        ({}, ("host:1", 1, 0)),
        (SHELL_OF_SLURM, ()),
        (ONE_TASK, ()),
        (_slurm(1, 1), ("", 1)),
        ({"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "8"}, ()),  # salloc, before srun
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ()),  # a pod that belongs to no job
    ],
)
def test_who_is_alone_meets_nobody(monkeypatch, recwarn, met, environment, flags):
    _set(monkeypatch, environment)
    assert cluster.join(*flags) == (0, 1)
    assert met == []
    assert not recwarn.list


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_SIZE=4"),  # Open MPI 5
        ({"PMI_SIZE": "3", "PMI_RANK": "1"}, "PMI_SIZE=3"),
        (_slurm(0, 1) | {"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4"),  # mpirun, one task of SLURM a host
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "JOB_COMPLETION_INDEX=0"),
    ],
)
def test_several_that_jax_does_not_see_are_no_strangers(monkeypatch, met, environment, words):
    """Each would do all the work, into the same files."""
    _set(monkeypatch, environment)
    with pytest.raises(InputError) as caught:
        cluster.join()
    assert words in str(caught.value)
    assert HAND in str(caught.value)
    assert met == []


@pytest.mark.slow
def test_a_job_of_kubernetes_is_read_from_its_interface(monkeypatch, met):
    """With a stand-in for the package kubernetes, which asks the cluster."""
    labels = {"job-name": "grid"}
    owner = SimpleNamespace(controller=True, kind="Job")
    metadata = SimpleNamespace(labels=labels, owner_references=[owner], name="grid-1-x")
    pod = SimpleNamespace(metadata=metadata, spec=SimpleNamespace(subdomain="jaxpods"))
    job = SimpleNamespace(metadata=SimpleNamespace(name="grid", labels={}), spec=SimpleNamespace(parallelism=3))
    from jax._src.clusters import K8sCluster

    package = ModuleType("kubernetes")
    package.config = SimpleNamespace(load_incluster_config=lambda: None)
    package.client = SimpleNamespace(
        CoreV1Api=SimpleNamespace,
        BatchV1Api=SimpleNamespace,
        exceptions=SimpleNamespace(ApiException=RuntimeError),
    )
    monkeypatch.setitem(sys.modules, "kubernetes", package)
    monkeypatch.setattr(K8sCluster, "_pod", lambda: pod)
    monkeypatch.setattr(K8sCluster, "_job", lambda: job)
    monkeypatch.setattr(K8sCluster, "_controller", lambda: owner)
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "10.0.0.7")
    _set(monkeypatch, {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"})
    assert cluster.join() == (1, 3)
    assert met == [None, ("grid-0.jaxpods:55527", 3, 1)]

    owner.kind = "ReplicaSet"
    with pytest.raises(InputError, match="only supports Job/JobSet.*--num_processes=1 to run alone"):
        cluster.join()


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        (_open_mpi(1, 1) | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "1"),
        (_open_mpi(1, 1) | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, None),
        (_slurm(1, 1) | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, None),
        (_slurm(1, 1) | {"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_LOCALID": "1"}, "1"),
        (_slurm(1, 1) | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "JAX_LOCAL_DEVICE_IDS": "2,3"}, "2,3"),
    ],
)
def test_a_process_that_has_its_host_for_itself_keeps_all_its_gpus(monkeypatch, environment, chosen):
    import jax

    updates = {}
    monkeypatch.setattr(cluster, "_join_runtime", lambda *place: None)
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    _set(monkeypatch, environment)
    assert cluster.join() == (1, 2)
    expected = {"jax_cuda_visible_devices": chosen, "jax_rocm_visible_devices": chosen}
    assert updates == (expected if chosen else {})
