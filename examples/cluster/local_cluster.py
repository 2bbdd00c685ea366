"""A Ray cluster of two nodes on this machine: one for the trainer, one for the teacher, with logical GPUs.

    python examples/cluster/local_cluster.py

It shows on one machine what a recipe does on several: `ray job submit` to the address it prints, groups on different
nodes, a node that dies. Runs until it is interrupted.
"""

import argparse
import json
import signal
import sys
import time

from ray.cluster_utils import Cluster

TEACHER_CPUS = 4
"""Logical CPUs a GPU of the teacher's node: a replica's, and few for others, so that Ray puts those elsewhere."""
OBJECT_STORE_BYTES = 512 * 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dashboard-port", type=int, default=8265, help="loopback port for `ray job submit`")
    parser.add_argument("--num-cpus", type=int, default=32, help="logical CPUs of the trainer's node")
    parser.add_argument("--num-gpus", type=int, default=1, help="logical GPUs of each node")
    options = parser.parse_args()
    common = {
        "num_cpus": options.num_cpus,
        "num_gpus": options.num_gpus,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    dashboard = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": options.dashboard_port}
    cluster = Cluster()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        head = cluster.add_node(**common, **dashboard, resources={"trainer": 1})
        teacher = cluster.add_node(**{**common, "num_cpus": TEACHER_CPUS * options.num_gpus}, resources={"teacher": 1})
        cluster.wait_for_nodes()
        nodes = {"trainer": head.node_id, "teacher": teacher.node_id}
        print(json.dumps({"address": f"http://{head.webui_url}", "ray": cluster.address, "nodes": nodes}), flush=True)
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        pass
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
