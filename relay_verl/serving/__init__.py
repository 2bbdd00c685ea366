"""A trained pair behind OpenAI's HTTP API: `relay-verl serve`.

    settings       ServeSettings, what an operator decides; ServerState, how the pair is
    service        RelayService: from a parsed request to deltas with their author, and their accounting
    app            create_app: endpoints, errors, server-sent events
    pair_server    PairServer: from options to a running server, and its end
    supervisor     both models' servers: vllm_server is started, model_watch restarts it, child_guard ends it

May import evaluation and what is below it. `fastapi`, `starlette` and `uvicorn` are imported here alone.
"""
