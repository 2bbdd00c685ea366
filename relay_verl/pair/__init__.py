"""The Python API: a student and its teacher as one object that writes texts.

    relay_pair        RelayPair: load, generate, stream, and their async siblings
    writing_options   WritingOptions, what each of these may be told
    chat_prompt       Prompt, what may be asked, and its token ids
    relayed_text      RelayedText, a response with who wrote what
    text_stream       TextStream, a response while it is written; PairStream, the same for callers
    opening           engines for folders, hub ids and URLs
    background_loop   the event loop behind the calls that are not async

`from relay_verl import RelayPair` is the way in. May import `preflight` and `serving` and what is below them.
"""
