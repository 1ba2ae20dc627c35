"""The queue on Ray: a real cluster of two machines, as processes, with runs' folders apart from each other's and the driver's."""

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import linear_table, two_classes

from dcnas.data.mnist import load_mnist
from dcnas.errors import InputError
from dcnas.latency.measure import Latency, device_name
from dcnas.nas.lut import predicted_ms
from dcnas.nas.space import Space
from dcnas.study import engine_ray, queue, section4, section4_runs
from dcnas.study.experiments import Experiment, depends_on, why_joint_classifies_better
from dcnas.study.runs import folder_of, is_complete

TINY = Experiment(
    label="tiny", task="denoise", network="unet", scale="smoke", seed=0, steps=3, batch=4, epoch_steps=2, lr=4e-3,
    schedule="one-cycle", precision="fp32", channels_last=True, train_images=64, eval_images=4, b=4, d=2, m=1.0, c=1,
)  # fmt: skip
SAME_BITS = ("config.json", "weights.safetensors", "per_image.safetensors", "samples.safetensors", "metrics.csv")


def test_without_ray_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray is not installed here; in the project's folder, `pip install -e '\.\[ray\]'` does"):
        queue.run_queue([TINY], engine="ray", progress=False)


def test_ray_is_imported_only_when_it_is_asked_for():
    assert "ray" not in (queue.__dict__ | section4_runs.__dict__)
    assert os.system(f"{sys.executable} -c 'import dcnas.study.engine_ray, sys; sys.exit(\"ray\" in sys.modules)'") == 0


class Machines:
    """Two nodes of one core; their runs lie in folders of their own."""

    def __init__(self, folder: Path):
        from ray.cluster_utils import Cluster

        self.folders = [folder / name for name in ("first", "second")]
        self.cluster = Cluster()
        for runs in self.folders:
            self.cluster.add_node(
                num_cpus=1, object_store_memory=10**8, include_dashboard=False, env_vars={"DCNAS_RUNS": str(runs)}
            )

    def address(self) -> str:
        return self.cluster.address

    def at_work(self) -> list[int]:
        """Process ids of the workers that carry out a run; Ray names them by its title, and its own agents otherwise."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment, title = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended meanwhile
            if str(self.folders[0].parent).encode() in environment and title.startswith(b"ray::") and b", smoke" in title:
                found.append(int(process.name))
        return found


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    os.environ.update(engine_ray.SETTINGS)  # before Ray is imported
    pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")
    found = Machines(tmp_path_factory.mktemp("machines"))
    yield found
    found.cluster.shutdown()


@pytest.fixture
def mnist():
    try:
        load_mnist()
    except (InputError, OSError) as error:
        pytest.skip(f"needs MNIST: {error}")


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    """The driver's runs, none yet."""
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def bits_of(run) -> dict[str, bytes]:
    return {name: (folder_of(run) / name).read_bytes() for name in SAME_BITS if (folder_of(run) / name).exists()}


def locally(runs: list, store: Path, monkeypatch) -> list[dict[str, bytes]]:
    """What the local engine's workers make of these runs, in another store."""
    with monkeypatch.context() as patch:
        patch.setenv("DCNAS_RUNS", str(store))
        queue.work(runs, "cpu", None)
        return [bits_of(run) for run in runs]


@pytest.mark.slow
def test_no_run_is_lost_when_a_worker_is_killed(machines, mnist, store, tmp_path, monkeypatch, capfd):
    """Five runs, one of which needs a sixth, on two machines; a worker is killed while it trains."""
    (behind,) = [e for e in why_joint_classifies_better("smoke") if depends_on(e)]
    behind = replace(behind, steps=2, epoch_steps=2, eval_images=2)
    slow = replace(TINY, steps=250, epoch_steps=100)
    runs = [slow, TINY, replace(TINY, seed=1), replace(TINY, task="classify", network="Conv-S", b=None), behind]
    (store / runs[1].name).mkdir(parents=True)
    (store / runs[1].name / "metrics.csv").write_text("here already")
    killed = []

    def kill_a_worker():
        end = time.monotonic() + 100
        while time.monotonic() < end and not killed:
            for folder in machines.folders:
                if (folder / slow.name / "config.json").exists() and (pids := trains(machines, folder)):
                    time.sleep(0.7)
                    assert not (folder / slow.name / "weights.safetensors").exists(), "it was too quick to be killed in training"
                    os.kill(pids[0], signal.SIGKILL)
                    killed.append(pids[0])
                    break
            time.sleep(0.05)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    left = queue.run_queue(runs, engine="ray", address=machines.address())
    killer.join()
    assert killed and not Path(f"/proc/{killed[0]}").exists()
    assert left == 0 and all(map(is_complete, runs)) and "5/5" in capfd.readouterr().err
    assert (store / runs[1].name / "metrics.csv").read_text() == "here already"
    made = [runs[0], *runs[2:], depends_on(behind)]
    assert {path.name for path in store.iterdir()} == {run.name for run in (*made, runs[1])}
    assert not [path for path in store.rglob("*") if path.suffix in (".part", ".pt")]
    for run, expected in zip(made, locally(made, tmp_path / "local", monkeypatch)):
        assert bits_of(run) == expected and {"weights.safetensors", "metrics.csv"} <= set(expected), run.title
    assert all(any((folder / run.name / "metrics.csv").exists() for folder in machines.folders) for run in made)


def trains(machines, folder: Path) -> list[int]:
    """Workers at work whose runs lie in `folder`."""
    return [pid for pid in machines.at_work() if str(folder).encode() in Path(f"/proc/{pid}/environ").read_bytes()]


def test_a_failing_run_ends_the_queue_in_one_sentence(machines, mnist):
    bad = replace(TINY, network="Conv-X", task="classify")
    with pytest.raises(Exception, match="Conv-X") as told:
        queue.run_queue([bad, TINY, replace(TINY, seed=2)], jobs=1, engine="ray", address=machines.address(), progress=False)
    assert not is_complete(TINY) and told.type is InputError and "\n" not in str(told.value)


def test_the_deadline_goes_along(machines, mnist):
    endless = replace(TINY, steps=10**6)
    assert queue.run_queue([endless, TINY], minutes=0.05, jobs=1, engine="ray", address=machines.address(), progress=False) == 2


@pytest.mark.slow
def test_latency_is_measured_by_the_driver_alone(machines, tmp_path, store, monkeypatch):
    """A training needs a derivation, that a search: the search and the training travel, the measurement does not."""
    import ray

    small = replace(
        section4.SCALES4["smoke"], data=f"folder:{two_classes(tmp_path / 'set')}", limit=None, search_batch=4, train_steps=3
    )
    monkeypatch.setitem(section4.SCALES4, "smoke", replace(small, eval_images=2))
    table = linear_table(Space(8, 32, 2, 0.25), batch=4)
    table.save(section4.table_path("smoke"))
    search = section4.search("smoke", 0, "test")
    training = section4.training("smoke", 0, "C-NAS", "C-NAS", derivation=section4.derivation(search))
    measured = []

    def here(runs, jobs, device, deadline, tick):
        assert ray.is_initialized() and not machines.at_work() and jobs == 1
        measured.extend(runs)
        queue.work(runs, device, deadline)

    real = section4_runs.build_network

    def known(network, architecture, *arguments, **options):
        model = real(network, architecture, *arguments, **options)
        model.says_ms = predicted_ms(table, architecture, network)
        return model

    def measure(models, **_):
        return {name: latency(getattr(model, "says_ms", 7.0)) for name, (model, _) in models.items()}

    monkeypatch.setattr(engine_ray, "run_wave", here)
    monkeypatch.setattr(section4_runs, "build_network", known)
    monkeypatch.setattr(section4_runs, "measure_many", measure)
    assert queue.run_queue([training], engine="ray", address=machines.address(), progress=False) == 0
    assert measured == [training.derivation] and all(map(is_complete, (search, training.derivation, training)))
    made = [(folder / training.derivation.name) for folder in machines.folders if (folder / training.name).exists()]
    assert [(path / "architecture.json").read_bytes() for path in made] == [
        (folder_of(training.derivation) / "architecture.json").read_bytes()
    ]
    monkeypatch.setattr(section4_runs, "build_network", real)
    there = tmp_path / "local"
    there.mkdir()
    for name in (search.table, search.name, training.derivation.name):
        os.symlink(store / name, there / name)
    assert locally([training], there, monkeypatch) == [bits_of(training)]


def latency(ms: float) -> Latency:
    return Latency(ms, ms, ms, ms, ms, None, 4, 3, 1, 1, device_name(), "", "channels_last", "float32")


def test_bad_input_for_ray(machines):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nothing listens
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        for options, why in (
            (dict(address=nobody), rf"address is '{nobody}', but no Ray cluster answers there \(.*\)\."),
            (dict(address="nonsense"), "address is 'nonsense', but a Ray cluster's HOST:PORT, or auto, was expected"),
            (dict(device="cuda:1", address=machines.address()), "device is 'cuda:1', but one of cpu, cuda was expected"),
            (dict(device="cuda", address=machines.address()), "device is 'cuda', but no machine of the Ray cluster offers a GPU"),
            (dict(jobs=0), "jobs is 0, but a whole number of at least 1"),
        ):
            with pytest.raises(InputError, match=why):
                queue.run_queue([TINY], engine="ray", progress=False, **options)
