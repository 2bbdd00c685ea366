"""What training takes of a GPU, with random weights: seconds and memory of verl's trainer, next to our estimate.

    python examples/gpu/training.py --tokenizer FOLDER --shape qwen3-1.7b --tokens 16384 [KEY=VALUE ...]

FOLDER is any Hugging Face folder with a tokenizer. Nothing is downloaded: the weights are drawn on the device in the
model's shape, and the texts are random ids. Each step trains on two micro-batches of so many tokens with
`+recipe=warmup_1.7b` and the overrides. Prints a JSON object: seconds and GiB of each step, tokens a second, and the
estimate of `relay-verl recipes`, term by term. `VERL_PLATFORM=cpu` and `+relay=warmup_cpu` run it without a GPU, where
memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from random_model import SHAPES, write_model

from relay_verl.data.parquet import write_parquet
from relay_verl.recipes.memory import GIB, Phase, training_phase, update_phase
from relay_verl.recipes.shapes import shape_of

NUM_STEPS = 3
SEQUENCE, PROMPT = 1024, 64


def write_texts(shape: str, num_rows: int, length: int, file: Path) -> None:
    """Rows of `relay-verl warmup-data` with random ids."""
    ids = np.random.default_rng(0).integers(0, SHAPES[shape].vocab_size, (num_rows, length))
    rows: list[dict[str, Any]] = []
    for index, row in enumerate(ids.tolist()):
        mask = [0] * PROMPT + [1] * (length - PROMPT)
        rows.append({"id": str(index), "input_ids": row, "loss_mask": mask, "is_finished": True})
    write_parquet(file, rows)


def measure(trainer: Any, device: Any) -> list[dict[str, float]]:
    """Seconds and memory of each step of an SFT trainer of verl's."""
    steps: list[dict[str, float]] = []
    train = trainer.training_client.train_batch

    def step(*args: Any, **kwargs: Any) -> Any:
        device.synchronize()
        device.reset_peak_memory_stats()
        start = time.perf_counter()
        output = train(*args, **kwargs)
        device.synchronize()
        seconds = round(time.perf_counter() - start, 3)
        steps.append({"seconds": seconds, **peaks(device)})
        return output

    trainer.training_client.train_batch = step
    trainer.ckpt_handler.save_checkpoint = lambda step: None
    trainer.fit()
    return steps


def peaks(device: Any) -> dict[str, float]:
    """GiB at the most since the last reset."""
    allocated, reserved = device.max_memory_allocated(), device.max_memory_reserved()
    return {"allocated": round(allocated / GIB, 2), "reserved": round(reserved / GIB, 2)}


def estimate(config: Any, num_tokens: int) -> list[Phase]:
    """What the catalog expects of the two phases of a step on one GPU."""
    shape = shape_of(config.model.path)
    assert shape is not None
    return [
        training_phase(shape, config.engine, config.model, 1, num_tokens),
        update_phase(shape, config.engine, config.model, 1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with a tokenizer's files")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen3-1.7b", help="of the model")
    parser.add_argument("--tokens", type=int, default=16384, help="of a micro-batch")
    parser.add_argument("overrides", nargs="*", help="of the recipe")
    options = parser.parse_args()
    length = min(SEQUENCE, options.tokens)
    num_rows = options.tokens // length
    with tempfile.TemporaryDirectory() as folder:
        model, texts = Path(folder) / "model", Path(folder) / "texts.parquet"
        write_model(options.shape, options.tokenizer, model)
        write_texts(options.shape, 2 * num_rows * NUM_STEPS, length, texts)
        settings = {
            "model.path": model,
            "data.train_files": texts,
            "data.train_batch_size": 2 * num_rows,
            "data.max_token_len_per_gpu": options.tokens,
            "data.max_length": length,
            "trainer.n_gpus_per_node": 1,
            "trainer.logger": "[console]",
            "trainer.default_local_dir": folder,
        }
        words = ["+recipe=warmup_1.7b", *(f"{key}={value}" for key, value in settings.items()), *options.overrides]
        with initialize_config_module("verl.trainer.config", version_base=None):
            config = compose("sft_trainer_engine", words)
        print(json.dumps(run(config, options.shape, options.tokens)))


def run(config: Any, shape: str, num_tokens: int) -> dict[str, Any]:
    """Train as verl's SFT trainer does, in this process."""
    os.environ |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29511",
    }
    from verl.trainer.sft_trainer import SFTTrainer
    from verl.utils.device import auto_set_device, get_torch_device
    from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

    auto_set_device(config)
    initialize_global_process_group()
    device = get_torch_device()
    steps = measure(SFTTrainer(config=config), device)
    destroy_global_process_group()
    phases = estimate(config, num_tokens)
    return {
        "device": device.get_device_name(),
        "shape": shape,
        "tokens of a micro-batch": num_tokens,
        "fused kernels": bool(config.model.use_fused_kernels),
        "attention": OmegaConf.select(config, "model.override_config.attn_implementation"),
        "steps": steps,
        "tokens a second": round(2 * num_tokens / min(step["seconds"] for step in steps)),
        "estimate": {
            phase.name: {term.name: round(term.num_bytes / GIB, 2) for term in phase.terms} for phase in phases
        },
        "estimated GiB": round(max(phase.gib for phase in phases), 2),
    }


if __name__ == "__main__":
    main()
