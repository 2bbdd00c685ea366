"""Defer heads: a score of each position by which the student's engine itself decides that the teacher writes next, as
CITER, Co-LLM and routing by entropy do it, without a command.

`heads` has the heads (torch), `head_info` and `head_folder` what is stored of one, `reserved_id` the id by which the
engine asks, `engine_head` what an engine is told; `vllm_models`, `vllm_processor` and `vllm_plugin` are the engine's
side (vLLM). Which student a head fits is checked in `relay_verl.models.deferring`. May import `config` and what is
below it. To add a head, add a name to `HeadKind` and a class to `HEADS`; to add a model class, one to `vllm_models`.
"""
