#!/usr/bin/env bash
# The teacher's machine: vLLM with what relaying needs of it, on port 8001.
#     RELAY_TEACHER_API_KEY=... bash examples/serving/teacher.sh Qwen/Qwen3-8B [more arguments of `vllm serve`]
# On the student's machine: RELAY_TEACHER_API_KEY=... relay-verl serve STUDENT --teacher-url http://TEACHER:8001/v1
set -euo pipefail
model=${1:?the first argument is the model: a folder or a hub id}
: "${RELAY_TEACHER_API_KEY:?set the key that the students will send}"
# the module of `vllm serve`, which vLLM's CPU build can run, too; the key is not on the command line, where ps shows it
VLLM_API_KEY=$RELAY_TEACHER_API_KEY exec python -m vllm.entrypoints.openai.api_server --model "$model" \
    --host 0.0.0.0 --port 8001 \
    --generation-config vllm \
    --enable-prefix-caching --enable-prompt-tokens-details "${@:2}"
