"""What vLLM writes without a defer head, with one that is not asked, and with one that is, as JSON; and what
transformers writes and scores.

    python defer_engines.py PAIR OUT

One process, one engine after the other: plain, the class with a head but no head, the class with one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCH_COMPILE_DISABLE": "1",
}

import pandas as pd
import torch
from transformers import AutoModelForCausalLM
from vllm import LLM, SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate

from relay_verl.config import DeferSettings
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.defer.engine_head import OFFSET, PROCESSOR, EngineHead
from relay_verl.defer.head_folder import save_head
from relay_verl.defer.head_info import HeadInfo, HeadKind
from relay_verl.defer.heads import CiterHead, make_head
from relay_verl.defer.loaded_head import LoadedHead
from relay_verl.defer.vllm_processor import DeferProcessor
from relay_verl.deferral import THRESHOLD_ARG
from relay_verl.engines import Generation
from relay_verl.engines.transformers_engine import TransformersEngine
from relay_verl.models.deferring import read_engine_head
from relay_verl.models.tokenizers import read_tokenizer
from relay_verl.policies import make_policy
from relay_verl.run_config import PromptSettings
from relay_verl.tokenization import chat_ids

NUM_PROMPTS, NUM_RELAYED = 64, 4
MAX_TOKENS = 24


class OfflineEngine:
    """A TokenEngine over vLLM's offline one, a request at a time."""

    def __init__(self, llm: LLM):
        self._llm = llm

    async def generate(
        self, prompt_ids: list[int], *, max_tokens: int, stop: Any = (), sampling: Any = None, request_id: Any = None
    ) -> Generation:
        params = SamplingParams(max_tokens=max_tokens, stop=list(stop), **(sampling or {}))
        output = self._llm.generate([{"prompt_token_ids": prompt_ids}], params, use_tqdm=False)[0].outputs[0]
        return Generation(list(output.token_ids), None, "length" if output.finish_reason == "length" else "eos")


def open_llm(student: str, **options: Any) -> LLM:
    return LLM(student, dtype="float32", enforce_eager=True, max_model_len=512, **options)


def params_of(spec: EngineHead, threshold: float | None) -> SamplingParams:
    plain: dict[str, Any] = {"temperature": 0.0}
    sampling = plain if threshold is None else spec.deferral(1).sampling(threshold, plain)
    return SamplingParams(max_tokens=MAX_TOKENS, logprobs=0, **sampling)


def write(llm: LLM, prompts: list[list[int]], params: SamplingParams) -> list[dict[str, Any]]:
    """Greedy responses: ids, and the log-probability of each as text that loses no bit."""
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    results = []
    for output in outputs:
        one = output.outputs[0]
        logprobs = [chosen[i].logprob for i, chosen in zip(one.token_ids, one.logprobs, strict=True)]
        results.append({"ids": list(one.token_ids), "logprobs": [logprob.hex() for logprob in logprobs]})
    return results


def spread_head(hidden_size: int) -> CiterHead:
    """An untrained head whose scores take all values from 0 to 1."""
    torch.manual_seed(7)
    head = make_head(HeadInfo(HeadKind.CITER, hidden_size))
    assert isinstance(head, CiterHead)
    with torch.no_grad():
        norm = head.layers[1]
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        head.layers[4].weight.mul_(6.0)
        head.layers[6].weight.mul_(12.0)
    return head


def find_scores(llm: LLM, spec: EngineHead, head: Any, model: Any, prompts: list[list[int]]) -> dict[str, Any]:
    """Scores of each position of greedy responses, a prompt at a time: as vLLM writes them, and by transformers."""
    served = llm.apply_model(lambda module: module)[0]
    kept, compute = served._defer, type(served).compute_logits
    served._defer = (head, spec.token_id)
    columns: list[float] = []

    def record(hidden: torch.Tensor) -> torch.Tensor:
        logits = compute(served, hidden)
        columns.append(float(logits[0, spec.token_id]) + OFFSET)
        return logits

    served.compute_logits = record
    engines, references = [], []
    for prompt in prompts:
        columns.clear()
        [response] = write(llm, [prompt], params_of(spec, 0.0))
        ids = response["ids"]
        engines.append(columns[: len(ids)])
        with torch.inference_mode():
            read = model(input_ids=torch.tensor([[*prompt, *ids]]), output_hidden_states=True)
            where = slice(len(prompt) - 1, len(prompt) - 1 + len(ids))
            references.append(head(read.hidden_states[-1][0, where], read.logits[0, where]).tolist())
    del served.compute_logits
    served._defer = kept
    return {"engine": engines, "reference": references}


def threshold_at(scores: list[list[float]], least: float, most: float) -> float:
    """A threshold below which a share of the scores between `least` and `most` is: the middle of the widest gap, where
    no rounding decides."""
    ordered = sorted(score for row in scores for score in row)
    near = ordered[int(len(ordered) * least) : int(len(ordered) * most)]
    low, high = max(pairwise(near), key=lambda pair: pair[1] - pair[0])
    return round((low + high) / 2, 6)


def mask_rows(spec: EngineHead) -> list[list[bool]]:
    """Which ids can be sampled after the processor, for requests of several kinds in one batch; ids of a step's end
    are 3 here."""
    config = SimpleNamespace(relay_defer_id=0, relay_defer_starts=[3])
    vllm_config = SimpleNamespace(model_config=SimpleNamespace(hf_config=config))
    processor = DeferProcessor(vllm_config, torch.device("cpu"), False)  # type: ignore[arg-type]
    asks = SamplingParams(extra_args={THRESHOLD_ARG: 0.5})
    rows = [(asks, [1, 3], []), (asks, [1, 3], [2]), (asks, [1], [2, 3]), (SamplingParams(), [1, 3], [])]
    added = [(row, params, prompt, output) for row, (params, prompt, output) in enumerate(rows)]
    processor.update_state(BatchUpdate(len(rows), removed=[], added=added, moved=[]))
    logits = torch.full((len(rows), 4), 0.25 - OFFSET)
    return torch.isfinite(processor.apply(logits)).tolist()


async def relay(
    student: Any, teacher: Any, spec: EngineHead, tokenizer: Any, prompts: list[list[int]], policy: str
) -> Any:
    config = RelayConfig(
        MAX_TOKENS,
        max_calls=0,
        max_tokens_per_call=64,
        deferral=spec.deferral(1),
        teacher_sampling={"temperature": 0.0},
    )
    decoder = RelayDecoder(student, teacher, tokenizer, config, raises_bugs=True)
    written = [await decoder.run(ids, sampling={"temperature": 0.0}, policy=make_policy(policy)) for ids in prompts]
    return [
        {"ids": one.response_ids, "writers": [s.source for s in one.segments for _ in s.token_ids]} for one in written
    ]


def main(pair: Path, out: Path) -> None:
    student, teacher = str(pair / "student_warm"), str(pair / "teacher")
    tokenizer = read_tokenizer("student", student)
    rows = pd.read_parquet(pair / "test.parquet").to_dict("records")[:NUM_PROMPTS]
    prompts = [chat_ids(tokenizer, row["prompt"], {}) for row in rows]
    folder = out.parent / "head"
    head = spread_head(64)
    save_head(folder, head, HeadInfo(HeadKind.CITER, 64))
    spec = read_engine_head(DeferSettings(str(folder)), student, tokenizer, PromptSettings({}))
    results: dict[str, Any] = {"reserved": spec.token_id, "rows": mask_rows(spec)}

    llm = open_llm(student)
    results["plain"] = write(llm, prompts, params_of(spec, None))
    del llm
    gc.collect()
    llm = open_llm(student, hf_overrides={"architectures": spec.overrides()["architectures"]})
    results["headless"] = write(llm, prompts, params_of(spec, None))
    del llm
    gc.collect()
    llm = open_llm(student, hf_overrides=spec.overrides(), logits_processors=[PROCESSOR])
    results["off"] = write(llm, prompts, params_of(spec, None))
    results["zero"] = write(llm, prompts, params_of(spec, 0.0))

    torch.set_num_threads(1)
    student_model, teacher_model = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval() for path in (student, teacher)
    )
    heads = {kind: make_head(HeadInfo(kind, 64)).for_inference() for kind in HeadKind} | {HeadKind.CITER: spec.load()}
    results["scores"] = {
        kind: find_scores(llm, spec, each, student_model, prompts[:NUM_RELAYED]) for kind, each in heads.items()
    }
    citer_scores = results["scores"][HeadKind.CITER]["engine"]
    middle, low = threshold_at(citer_scores, 0.3, 0.7), threshold_at(citer_scores, 0.05, 0.2)
    results["batch"] = write(llm, prompts, params_of(spec, low))
    results["alone"] = [write(llm, [prompt], params_of(spec, low))[0] for prompt in prompts]

    engines = {
        "vllm": OfflineEngine(llm),
        "transformers": TransformersEngine(student_model, tokenizer, head=LoadedHead.load(spec)),
    }
    answering = TransformersEngine(teacher_model, tokenizer)
    for policy in ("student_alone", "teacher_alone", "deferred_0", "deferred_1.5", f"deferred_{middle}"):
        for name, engine in engines.items():
            relayed = relay(engine, answering, spec, tokenizer, prompts[:NUM_RELAYED], policy)
            results[f"{policy.replace(str(middle), 'middle')} by {name}"] = asyncio.run(relayed)
    out.write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
