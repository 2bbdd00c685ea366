"""What vLLM makes of the strings that `teacher_free` bans: the promise of `relay_verl.policies` is as wide as this."""

from relay_verl.policies import TeacherFree
from relay_verl.protocol import CLOSE, OPEN
from relay_verl.tokenization import TokenBytes
from tests.helpers.tokenizers import BPE_WORDS, make_bpe


def banned() -> tuple[list[list[int]], TokenBytes]:
    """The token sequences that vLLM's sampler never completes under `teacher_free`, and the tokenizer's bytes."""
    from vllm import SamplingParams

    tokenizer = make_bpe(BPE_WORDS)
    tokenizer.max_token_id = len(tokenizer) - 1  # vLLM's wrapper of a tokenizer has it
    params = SamplingParams(**TeacherFree().student_sampling())
    params.update_from_tokenizer(tokenizer)
    return params.bad_words_token_ids, TokenBytes(tokenizer)


def test_the_tokenizers_own_spelling_of_each_string_is_banned() -> None:
    sequences, tokens = banned()
    tokenizer = make_bpe(BPE_WORDS)
    assert 2 <= len(sequences) <= 4, "each string alone, and behind a blank where that is another first token"
    for string in (OPEN, CLOSE):
        assert tokenizer.encode(string, add_special_tokens=False) in sequences
    assert {tokens.join(sequence).strip() for sequence in sequences} == {OPEN.encode(), CLOSE.encode()}


def test_other_spellings_pass() -> None:
    """So a command under `teacher_free` is text, which no one serves (vllm#23886, vllm#32601)."""
    sequences, tokens = banned()
    in_bytes = list(OPEN.encode())  # the ids of single bytes are the bytes
    assert tokens.join(in_bytes) == OPEN.encode()
    assert in_bytes not in sequences
    assert TeacherFree().allows_calls is False
