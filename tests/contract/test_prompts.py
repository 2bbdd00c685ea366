"""One row is one prompt: training, filter, warm-up data and evaluation give the model the same ids, also where the chat
template has a system prompt of its own, where the tokenizer is elsewhere or has code of its own, and where the chat is
a list of parts; and the ids that the warm-up trains on begin with them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import verl  # noqa: F401  isort: skip  (loads the plugin)
from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.utils.config import omega_conf_to_dataclass

from relay_verl.config import read_settings
from relay_verl.data.generate import plan_filter, plan_warmup_data
from relay_verl.data.parquet import write_parquet
from relay_verl.data.schema import to_row
from relay_verl.data.source import Source
from relay_verl.engines.base import Generation
from relay_verl.engines.text_bridge import TextBridge
from relay_verl.errors import UserError
from relay_verl.evaluation.shared_tokenizer import load_shared_tokenizer
from relay_verl.evaluation.worker import EvalSettings, EvalWorker
from relay_verl.models.tokenizers import tokenizer_at
from relay_verl.preflight.model_checks import check_teacher
from relay_verl.run_config import RunConfig
from relay_verl.tokenization import chat_ids
from relay_verl.trainer.agent_loop import RelayAgentLoop
from relay_verl.trainer.datasets import TeacherSolvableDataset
from relay_verl.trainer.warmup_dataset import WarmupDataset
from tests.helpers.tokenizers import BPE_WORDS, make_bpe

SYSTEM = "You are a helpful assistant."
TEMPLATE = (  # as Qwen2.5's: a system prompt of its own where the chat has none
    "{%- if messages[0]['role'] != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{%- endif %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{%- if enable_thinking is defined and not enable_thinking %}<think></think>{%- endif %}{%- endif %}"
)
OTHER = "{%- for m in messages %}[{{ m.role }}] {{ m.content }}\n{%- endfor %}"
CHATS: dict[str, list[dict[str, Any]]] = {
    "a question": [{"role": "user", "content": "What is 7*8? \\boxed{}"}],
    "a system prompt of the row's": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "7*8?"}],
    "several turns": [
        {"role": "user", "content": "7*8?"},
        {"role": "assistant", "content": "56"},
        {"role": "user", "content": "and é, <b> & 中?"},
    ],
    "a list of parts": [
        {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "7*8?"}]},
    ],
    "keys that hold nothing": [{"role": "user", "content": "7*8?", "tool_calls": None, "name": None}],
}


class Noting:
    """Answers 56 and keeps the prompts."""

    def __init__(self, tokenizer: Any):
        self.answer = [*tokenizer.encode("\\boxed{56}"), tokenizer.eos_token_id]
        self.prompts: list[list[int]] = []

    async def generate(self, prompt_ids: list[int], **_: Any) -> Generation:
        self.prompts.append(list(prompt_ids))
        return Generation(list(self.answer), None, "eos")


def save_model(folder: Path, template: str | None) -> str:
    tokenizer = make_bpe(BPE_WORDS, added=("<|im_start|>", "<|im_end|>"))
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}))
    return str(folder)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save_model(tmp_path / "model", TEMPLATE)


def composed(model: str, *overrides: str) -> Any:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(
            "ppo_trainer",
            overrides=[
                *("+recipe=relay_tiny", f"actor_rollout_ref.model.path={model}", f"relay.teacher.path={model}"),
                *("data.max_prompt_length=512", "relay.filter.num_samples=1", "relay.warmup.num_samples=1", *overrides),
            ],
        )


def prompts_of(config: Any, model: str, chat: list[dict[str, Any]], folder: Path) -> dict[str, list[int]]:
    """The prompt of one row at each place that asks a model."""
    row = to_row(data_source="x", question="?", ground_truth="56", id="q", index=0) | {"prompt": chat}
    write_parquet(folder / "rows.parquet", [row])
    source = Source.scan(folder / "rows.parquet")
    [(_, query)] = source.queries()
    prompts: dict[str, list[int]] = {}

    # training, as verl's worker gets the row and loads the tokenizer
    tokenizer = omega_conf_to_dataclass(config.actor_rollout_ref.model).tokenizer
    loop = RelayAgentLoop(
        trainer_config=DictConfigWrap(config),
        server_manager=None,
        tokenizer=tokenizer,
        processor=None,
        dataset_cls=None,
        data_config=DictConfigWrap(config.data),
        hf_model_type="qwen2",
    )
    data = TeacherSolvableDataset(str(folder / "rows.parquet"), tokenizer, config.data)

    async def train() -> None:
        loop.loop = asyncio.get_running_loop()
        prompts["training"] = await loop.build_prompt(data[0]["raw_prompt"])

    asyncio.run(train())

    # the two generators
    for name, plan in (
        ("filter", plan_filter(RunConfig(config), source)),
        ("warm-up data", plan_warmup_data(RunConfig(config), source, model)),
    ):
        loaded = tokenizer_at(RunConfig(config).prompts, plan.tokenizer_path)
        engine = Noting(loaded)
        made = asyncio.run(plan.make_worker(engine, loaded).process(query))
        [prompts[name]] = engine.prompts
        if name == "warm-up data":
            write_parquet(folder / "warmup.parquet", made)

    # the warm-up's own dataset: the ids as they were sampled, loss on the response alone
    sft = compose_sft(folder / "warmup.parquet")
    prompts["warm-up"] = sft["input_ids"][sft["loss_mask"] == 0].tolist()

    # evaluation, under the student and under the teacher
    settings = read_settings(config.relay)
    for policy in ("student_alone", "teacher_alone"):
        loaded, _ = load_shared_tokenizer(RunConfig(config).prompts, [model], None)
        rules = EvalSettings("c", policy, settings, 99, None, RunConfig(config).prompts.template, 0)
        engine = Noting(loaded)
        worker = EvalWorker(engine, engine, loaded, rules)
        asyncio.run(worker.process({"row": query, "sample": 0, "sampling": {"temperature": 0.0}}))
        [prompts[policy]] = engine.prompts

    # a teacher behind a text bridge reads the chat by its own template, which is the same one here
    engine = Noting(tokenizer)
    bridged = TextBridge(engine, tokenizer, tokenizer, RunConfig(config).prompts.template).open(
        chat, len(prompts["training"])
    )
    asyncio.run(bridged.generate(prompts["training"], max_tokens=9))
    [prompts["text bridge"]] = engine.prompts
    return prompts


def compose_sft(path: Path) -> Any:
    return WarmupDataset(str(path), None, OmegaConf.create({"max_length": 4096, "truncation": "error"}))[0]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("+data.apply_chat_template_kwargs.enable_thinking=true",),
        (f"actor_rollout_ref.model.custom_chat_template='{OTHER}'",),
    ],
    ids=["the default", "an argument of the template", "a template of the recipe's"],
)
@pytest.mark.parametrize("name", CHATS)
def test_a_row_is_the_same_prompt_everywhere(name: str, overrides: tuple[str, ...], model: str, tmp_path: Path) -> None:
    overrides = tuple(o.replace("\n", "\\n") if "custom" in o else o for o in overrides)
    config = composed(model, *overrides)
    prompts = prompts_of(config, model, CHATS[name], tmp_path)
    assert len(prompts) == 7
    assert {who for who, ids in prompts.items() if ids != prompts["training"]} == set()
    text = tokenizer_at(RunConfig(config).prompts, model).decode(prompts["training"])
    has_template = config.actor_rollout_ref.model.custom_chat_template is None
    is_default = has_template and CHATS[name][0]["role"] != "system"
    assert text.count(SYSTEM) == int(is_default), "once, where the row has none and the template does"


def test_parts_are_the_prompt_of_their_text(model: str, tmp_path: Path) -> None:
    """Text models' templates print a list as Python shows it."""
    tokenizer = tokenizer_at(RunConfig(composed(model)).prompts, model)
    parts = CHATS["a list of parts"]
    plain = [{**m, "content": "".join(part["text"] for part in m["content"])} for m in parts]
    assert chat_ids(tokenizer, parts, {}) == chat_ids(tokenizer, plain, {})
    text = tokenizer.decode(chat_ids(tokenizer, parts, {}))
    assert "Be short." in text
    assert "What is 7*8?" in text
    assert "'type'" not in text


def test_a_tokenizer_elsewhere_is_read_everywhere(model: str, tmp_path: Path) -> None:
    """`model.tokenizer_path`: the student's own folder has none."""
    student = tmp_path / "student"
    student.mkdir()
    (student / "config.json").write_text((Path(model) / "config.json").read_text())
    overrides = (f"actor_rollout_ref.model.path={student}", f"actor_rollout_ref.model.tokenizer_path={model}")
    prompts = prompts_of(composed(model, *overrides), str(student), CHATS["a question"], tmp_path)
    assert len(prompts) == 7
    assert {who for who, ids in prompts.items() if ids != prompts["training"]} == set()


OWN_CODE = """
from transformers import PreTrainedTokenizerFast


class Own(PreTrainedTokenizerFast):
    def apply_chat_template(self, conversation, **options):
        return super().apply_chat_template([*conversation, {"role": "user", "content": "own"}], **options)
"""


def test_a_tokenizer_with_code_of_its_own_is_read_everywhere(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`model.trust_remote_code`: its class changes what a template gets."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (Path(model) / "own.py").write_text(OWN_CODE)
    file = Path(model) / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {
        "auto_map": {"AutoTokenizer": [None, "own.Own"]},
        "tokenizer_class": "Own",
    }
    file.write_text(json.dumps(settings))
    config = composed(model, "actor_rollout_ref.model.trust_remote_code=true")
    prompts = prompts_of(config, model, CHATS["a question"], tmp_path)
    assert {who for who, ids in prompts.items() if ids != prompts["training"]} == set()
    assert tokenizer_at(RunConfig(config).prompts, model).decode(prompts["filter"]).count("own") == 1


# ---- models whose templates differ ----


def test_templates_that_write_other_prompts_are_said(model: str, tmp_path: Path, capsys: Any) -> None:
    """As Qwen2.5-Math's and Qwen2.5's do, which share all else."""
    other = save_model(tmp_path / "other", TEMPLATE.replace(SYSTEM, "Reason step by step."))
    for pair in ((model, model), (model, other)):
        differs = pair[1] == other
        config = composed(model)
        load_shared_tokenizer(RunConfig(config).prompts, pair, None)
        assert ("Reason step by step." in capsys.readouterr().err) == differs
        teacher = read_settings({"teacher": {"path": pair[1]}}).teacher
        assert ("Reason step by step." in check_teacher("relay.teacher", teacher, model)) == differs


def test_a_model_without_a_template_is_one_error_before_it_loads(tmp_path: Path) -> None:
    bare = save_model(tmp_path / "bare", None)
    with pytest.raises(UserError, match="bare: its tokenizer has no chat template"):
        tokenizer_at(RunConfig(composed(bare)).prompts, bare)
