"""Wait until a Ray cluster has its nodes: `RAY_ADDRESS=... python examples/cluster/wait_for_nodes.py 2`."""

import argparse
import sys
import time

import ray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_nodes", type=int, help="nodes that must be alive")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait at most")
    options = parser.parse_args()
    ray.init(address="auto", log_to_driver=False)
    deadline = time.monotonic() + options.timeout
    while (alive := sum(node["Alive"] for node in ray.nodes())) < options.num_nodes:
        if time.monotonic() > deadline:
            sys.exit(f"wait_for_nodes: {alive} of {options.num_nodes} nodes after {options.timeout:g} s")
        time.sleep(1)
    print(f"{alive} nodes, {ray.cluster_resources().get('GPU', 0):g} GPUs")


if __name__ == "__main__":
    main()
