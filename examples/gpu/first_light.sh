#!/usr/bin/env bash
# First light on one GPU, stage by stage; each takes a few minutes, is useful alone and is skipped once it has ended.
#
#   examples/gpu/first_light.sh [probe] [models] [data] [serve] [relay] [stop] [grpo] [alone] [end]   all by default
#
# Nothing is downloaded: weights are random in Qwen3's shapes, questions are GSM8K's from examples/real, the tokenizer is
# Qwen3's from the tests. Environment:
#   OUT      folder for everything (outputs/first_light); a stage leaves NAME.done there
#   PYTHON   the interpreter (python)
#   STUDENT_SHAPE, TEACHER_SHAPE   of random_model.py (qwen3-0.6b, qwen3-1.7b)
#   EAGER=1 runs the engines without CUDA graphs
#   ON_CPU=1 is a dry run on CPU with shapes of a few weights
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${OUT:-outputs/first_light}
PYTHON=${PYTHON:-python}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd)
export PYTHONPATH="$HERE:$(cd "$HERE/../.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
export RELAY_STUDENT="$OUT/student"
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 RAY_USAGE_STATS_ENABLED=0 NO_PROXY=127.0.0.1,localhost
STUDENT_PORT=${STUDENT_PORT:-8001} TEACHER_PORT=${TEACHER_PORT:-8002}
TEACHER_URL=http://127.0.0.1:$TEACHER_PORT/v1

if [ "${ON_CPU:-}" ]; then
  STUDENT_SHAPE=tiny-wide TEACHER_SHAPE=tiny-wide
  RESPONSES=4 TOKENS=48 ROUNDS=1 SHARES="0 0.6" LENGTH=512 STUDENT_CACHE=33554432 TEACHER_CACHE=33554432
  BATCH=2 SAMPLES=2 ANSWER=24 STEPS=2
  export VERL_PLATFORM=cpu VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1 TORCH_COMPILE_DISABLE=1
  ENGINE=(--enforce-eager)
  OFFLINE=(enforce_eager=true)
  DEVICE=(+relay=cpu data.max_prompt_length=384 actor_rollout_ref.rollout.max_model_len=512
    actor_rollout_ref.rollout.max_num_seqs=16 ray_kwargs.ray_init.num_gpus=1
    relay.warmup.base_model="$OUT/student" actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048)
else
  RESPONSES=${RESPONSES:-256} TOKENS=${TOKENS:-512} ROUNDS=${ROUNDS:-3} SHARES=${SHARES:-0 0.01 0.1} LENGTH=2048
  STUDENT_CACHE=${STUDENT_CACHE:-$((20 << 30))} TEACHER_CACHE=${TEACHER_CACHE:-$((16 << 30))}  # bytes
  BATCH=${BATCH:-16} SAMPLES=${SAMPLES:-8} ANSWER=${ANSWER:-1024} STEPS=${STEPS:-3}
  # CUDA graphs of decoding without compilation, so that an engine starts in seconds rather than minutes
  GRAPHS='{"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}'
  [ "${EAGER:-}" ] && GRAPHS='{"mode": 0, "cudagraph_mode": "NONE"}'
  ENGINE=(--compilation-config "$GRAPHS" --gpu-memory-utilization 0.2)
  OFFLINE=("compilation_config=$GRAPHS" gpu_memory_utilization=0.2)
  DEVICE=(trainer.n_gpus_per_node=1 data.max_prompt_length=512 actor_rollout_ref.rollout.max_model_len=2048
    actor_rollout_ref.rollout.gpu_memory_utilization=0.4
    # each of verl's small actors takes a CPU of Ray's, which a machine with one GPU may not have
    ++ray_kwargs.ray_init.num_cpus=64 ++reward.num_workers=0 actor_rollout_ref.rollout.agent.num_workers=4
    ++transfer_queue.backend.SimpleStorage.num_data_storage_units=2
    "+actor_rollout_ref.rollout.engine_kwargs.vllm.compilation_config='$GRAPHS'")
fi
STUDENT_SHAPE=${STUDENT_SHAPE:-qwen3-0.6b} TEACHER_SHAPE=${TEACHER_SHAPE:-qwen3-1.7b}

probe() {
  "$PYTHON" "$HERE/probe.py" | tee "$OUT/probe.txt"
}

models() {
  "$PYTHON" "$HERE/random_model.py" --shape "$STUDENT_SHAPE" --out "$OUT/student" &
  "$PYTHON" "$HERE/random_model.py" --shape "$TEACHER_SHAPE" --out "$OUT/teacher"
  wait $!
}

# is_up PORT
is_up() {
  "$PYTHON" -c "from urllib.request import urlopen; urlopen('http://127.0.0.1:$1/health', timeout=5)" 2>/dev/null
}

# serve_one NAME PORT CACHE: in a session of its own, so that it outlives this script
serve_one() {
  if [ -f "$OUT/$1.pid" ] && kill -0 "$(cat "$OUT/$1.pid")" 2>/dev/null; then return 0; fi
  setsid "$PYTHON" -m vllm.entrypoints.openai.api_server --model "$OUT/$1" --host 127.0.0.1 --port "$2" \
    --max-model-len "$LENGTH" --max-num-seqs 256 --kv-cache-memory-bytes "$3" --generation-config vllm \
    --enable-prompt-tokens-details --disable-uvicorn-access-log "${ENGINE[@]}" >"$OUT/$1.log" 2>&1 </dev/null &
  echo $! >"$OUT/$1.pid"
}

wait_for() {
  for _ in $(seq 600); do
    if is_up "$2"; then return 0; fi
    if ! kill -0 "$(cat "$OUT/$1.pid")" 2>/dev/null; then break; fi
    sleep 0.5
  done
  tail -n 40 "$OUT/$1.log"
  echo "first_light: the server of $1 did not start; $OUT/$1.log has the rest" >&2
  return 1
}

serve() {
  serve_one teacher "$TEACHER_PORT" "$TEACHER_CACHE"
  serve_one student "$STUDENT_PORT" "$STUDENT_CACHE"
  wait_for teacher "$TEACHER_PORT"
  wait_for student "$STUDENT_PORT"
}

relay() {
  "$PYTHON" "$HERE/relay_rate.py" --student "$OUT/student" --student-url "http://127.0.0.1:$STUDENT_PORT/v1" \
    --teacher-url "$TEACHER_URL" --responses "$RESPONSES" --tokens "$TOKENS" --rounds "$ROUNDS" --barrier --shares $SHARES \
    --out "$OUT/rounds.jsonl" --set max_model_len="$LENGTH" max_num_seqs=256 kv_cache_memory_bytes="$STUDENT_CACHE" \
    "${OFFLINE[@]}" 2>"$OUT/relay.log" >"$OUT/relay.md" || { tail -n 40 "$OUT/relay.log"; return 1; }
  cat "$OUT/relay.md"
}

# stop_one NAME: the server and the engine that it started
stop_one() {
  if [ -f "$OUT/$1.pid" ]; then
    kill -TERM -- "-$(cat "$OUT/$1.pid")" 2>/dev/null || true
    rm "$OUT/$1.pid"
  fi
}

# the student's memory is needed for its trainer
stop() { stop_one student; }

end() { stop_one teacher; }

# train NAME KEY=VALUE...: the trainer and the student's engine on this GPU, next to the teacher's server
train() {
  local name=$1 sampler=
  shift
  mkdir -p "$OUT/$name"
  [ -f "$OUT/data/questions.parquet" ] || data
  local words=(+recipe=relay_0.6b "${DEVICE[@]}" "data.train_files=$OUT/data/questions.parquet"
    "data.val_files=$OUT/data/questions.parquet" "data.train_batch_size=$BATCH" "data.max_response_length=$ANSWER"
    "actor_rollout_ref.rollout.n=$SAMPLES" "actor_rollout_ref.actor.ppo_mini_batch_size=$BATCH"
    relay.teacher.path=null "relay.teacher.base_url=$TEACHER_URL" relay.policy=scattered:Scattered_0.1 relay.filter.min_pass_rate=0
    "trainer.total_training_steps=$STEPS" trainer.val_before_train=false trainer.test_freq=-1 trainer.save_freq=-1
    'trainer.logger=[console,file]' "trainer.default_local_dir=$OUT/$name" ++ray_kwargs.ray_init.include_dashboard=false
    "$@")
  printf '%s\n' "${words[@]}" >"$OUT/$name/words"
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits --loop-ms=500 >"$OUT/$name/memory.csv" &
    sampler=$!
  fi
  local status=0
  VERL_FILE_LOGGER_PATH="$OUT/$name/metrics.jsonl" "$PYTHON" -m verl.trainer.main_ppo "${words[@]}" \
    "hydra.run.dir=$OUT/$name/hydra" >"$OUT/$name/log" 2>&1 || status=$?
  [ -z "$sampler" ] || kill "$sampler"
  if [ "$status" != 0 ]; then
    tail -n 60 "$OUT/$name/log"
    return "$status"
  fi
  "$PYTHON" "$HERE/grpo_table.py" "$OUT/$name/metrics.jsonl" --memory "$OUT/$name/memory.csv" \
    --config "$OUT/$name/words" | tee "$OUT/$name/table.md"
}

data() { "$PYTHON" "$HERE/../real/questions.py" --out "$OUT/data" --warmup 1 --training 64; }

grpo() { train grpo; }

# the same without a teacher: what relaying costs a step
alone() { train alone relay.max_calls=0 relay.policy=learned; }

ALL=(probe models data serve relay stop grpo alone end)
[ $# -gt 0 ] || set -- "${ALL[@]}"
for stage in "$@"; do
  if [[ " ${ALL[*]} " != *" $stage "* ]]; then
    echo "first_light: $stage is not a stage; there are ${ALL[*]}" >&2
    exit 2
  fi
  # servers end with the machine, so what concerns them is never skipped
  if [ -f "$OUT/$stage.done" ] && [[ " serve stop end " != *" $stage "* ]]; then
    echo "== $stage: done before"
    continue
  fi
  echo "== $stage"
  started=$SECONDS
  "$stage"
  echo "== $stage: $((SECONDS - started)) s" | tee "$OUT/$stage.done"
done
