"""The imitation of vLLM's server as a process: `python fake_vllm_process.py PORT [BEHAVIOUR]`.

`fails` ends before it answers, as vLLM does with a model that it cannot load; `hangs` answers until it is asked for a
completion of two tokens, and then to nothing.
"""

import sys
import threading

from fake_vllm import FakeVllm


def main() -> None:
    port, behaviour = int(sys.argv[1]), sys.argv[2]
    if behaviour == "fails":
        print("INFO starting\nValueError: No supported config format in /models/x\nRuntimeError: see root cause above")
        sys.exit(1)
    fake = FakeVllm(port)
    hung = threading.Event()

    def complete(body: dict) -> dict:
        if body["max_tokens"] > 1:
            hung.set()
        choice = {"index": 0, "text": "x", "token_ids": [7] * body["max_tokens"], "finish_reason": "length"}
        return {"id": "1", "object": "text_completion", "choices": [choice]}

    def answer_health(_: object) -> tuple[int, dict]:
        if behaviour == "hangs" and hung.is_set():
            threading.Event().wait()
        return 200, {}

    model = {"id": "student", "object": "model", "max_model_len": 64}
    fake.routes |= {
        "/health": answer_health,
        "/v1/models": {"object": "list", "data": [model]},
        "/v1/completions": complete,
    }
    threading.Event().wait()


if __name__ == "__main__":
    main()
