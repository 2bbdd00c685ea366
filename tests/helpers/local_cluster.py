"""`examples/cluster/local_cluster.py` under a Python that has verl, vLLM and Ray, but not this plugin."""

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class LocalCluster:
    """Two raylets on this machine."""

    process: psutil.Process
    dashboard: str
    address: str
    nodes: dict[str, str]
    """Their ids, by what they are for."""
    python: str

    def kill_node(self, resource: str) -> None:
        """End all processes of the node that has this resource, with SIGKILL."""
        family = self.process.children(recursive=True)
        (raylet,) = [p for p in family if p.name() == "raylet" and f"{resource},1" in " ".join(p.cmdline())]
        for process in [*raylet.children(recursive=True), raylet]:
            process.kill()

    def actors_by_node(self) -> dict[str, list[str]]:
        """Classes of the actors that are alive, by the id of the node they run on."""
        by_node: dict[str, list[str]] = {}
        for actor in self.actors():
            by_node.setdefault(actor["node_id"], []).append(actor["class_name"])
        return by_node

    def actors(self) -> list[dict[str, Any]]:
        """The actors that are alive: node_id, class_name, name (empty if it has none) and pid of each."""
        code = (
            "import json, ray; from ray.util.state import list_actors; ray.init(address='auto', log_to_driver=False)\n"
            "alive = [one for one in list_actors(limit=500) if one.state == 'ALIVE']\n"
            "names = ('node_id', 'class_name', 'name', 'pid')\n"
            "print(json.dumps([{name: getattr(one, name) for name in names} for one in alive]))"
        )
        environment = os.environ | {"RAY_ADDRESS": self.address}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@contextmanager
def local_cluster(folder: Path) -> Iterator[LocalCluster]:
    """The cluster while it runs; its Python, which lacks this plugin, is made in `folder`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=240)
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (packages / "base.pth").write_text(sysconfig.get_path("purelib"))  # what its own .pth files add stays out
    python = str(folder / "bin" / "python")
    assert subprocess.run([python, "-c", "import relay_verl"], capture_output=True, cwd=folder).returncode != 0
    with running_cluster(python) as cluster:
        yield cluster


@contextmanager
def running_cluster(
    python: str = sys.executable, *, num_gpus: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[LocalCluster]:
    """The cluster while it runs, under this Python, with so many GPUs a node and these variables; all if None."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = ROOT / "examples" / "cluster" / "local_cluster.py"
    words = [python, str(script), "--dashboard-port", str(port), "--num-gpus", str(num_gpus)]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    assert started.stdout is not None
    try:
        said = next(json.loads(line) for line in started.stdout if line.startswith("{"))
        yield LocalCluster(psutil.Process(started.pid), said["address"], said["ray"], said["nodes"], python)
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(timeout=240)
