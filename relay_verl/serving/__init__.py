"""A trained pair behind OpenAI's HTTP API: `relay-verl serve`.

    settings       ServeSettings, what an operator decides; ServerState, how the pair is
    service        RelayService: from a parsed request to deltas with their author, and their accounting
    app            create_app: endpoints, errors, server-sent events

May import evaluation and what is below it. `fastapi`, `starlette` and `uvicorn` are imported here alone.
"""
