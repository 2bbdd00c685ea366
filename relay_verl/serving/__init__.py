"""A trained pair behind OpenAI's HTTP API: `relay-verl serve`.

    settings       ServeSettings, what an operator decides; ServerState, how the pair is
    app            create_app: endpoints and errors; gate is in front of it, event_stream writes streams
    request_fields what a body may say; refusals what it may not; request_reader makes a RelayRequest of it
    service        RelayService: the responses of a RelayRequest; answer is one of them while it is written
    form           how answers look: chat_form, completion_form; usage what they cost
    admission      how many responses are written at a time
    stream_door    how tokens leave a vLLM server that is started here; door_engine asks it
    pair_server    PairServer: from options to a running server, and its end
    supervisor     both models' servers: vllm_server is started, model_watch restarts it, child_guard ends it

May import evaluation and what is below it. `fastapi`, `starlette` and `uvicorn` are imported here alone.
"""
