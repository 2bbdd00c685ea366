"""Judges a finished results folder afterwards, and continues where it was killed.

    FOLDER/verdicts.parquet                  what the judge said, a row a response, in the order of responses.jsonl
    FOLDER/verdicts.parquet.manifest.json    {"job": the judge and the responses' hash, ...}
    FOLDER/responses.jsonl                   gets the verdicts once all are in
    FOLDER/summary.json                      gets the accuracy by judge

Invariant: responses.jsonl is the old one or has all verdicts; nothing else of a response changes. What decides is the
responses without their verdicts, so that the same judge on the same folder has nothing left to do. The judge is given
the answer without commands, also of responses that were graded with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from relay_verl.config import RelaySettings
from relay_verl.errors import PermanentError
from relay_verl.grading import boxed_answer
from relay_verl.jobs import Job, run_job
from relay_verl.jobs.formats import Parquet
from relay_verl.judging.agreement import Agreement, agreement
from relay_verl.judging.answer_judge import AnswerJudge
from relay_verl.protocol import strip_attempted_calls
from relay_verl.traces.records import JudgeText, ResponseRecord, refusal, write_records
from relay_verl.traces.results import RESPONSES, VERDICTS, read_result

_SCHEMA = pa.schema([("is_correct", pa.bool_()), ("reply", pa.string()), ("error", pa.string())])


async def judge_results(
    folder: Path,
    judge: AnswerJudge,
    max_concurrency: int = 32,
    max_failed_share: float = RelaySettings.max_failed_call_share,
) -> Agreement:
    """Put every response of `folder` to the judge; gives how far it agrees with the rule.

    A reply that is not a verdict is kept as such, and so is a question that the endpoint refuses for good. Where the
    endpoint gives no reply, the same call asks again.

    Args:
        folder: a whole results folder.
        judge: whom to ask; `Judge.check` tells beforehand whether it can judge.
        max_concurrency: responses under way at a time.
        max_failed_share: largest share of the responses that may fail; see `relay_verl.engines.failure_share`.

    Raises:
        UserError: the folder is not a whole result.
        JobError: replies are missing, or the folder's verdicts are by another judge; what is finished is saved.
    """
    records = [replace(record, judge=None) for record in read_result(folder).records]
    # with the answers as the judge reads them: verdicts on an answer with a command in it are another job's
    asked = [replace(record, answer=_answer_of(record)) for record in records]
    job = Job(
        spec={"kind": "judge", "judge": judge.spec, "responses_sha256": _hash(asked)},
        format=Parquet(_SCHEMA),
        process=lambda row: _ask(judge, row),
        to_records=lambda row, verdict: [verdict],
        max_concurrency=max_concurrency,
        max_failed_share=max_failed_share,
        failed_share_key="--max-failed-share",
        replace=lambda row, cause: refusal(cause),
    )
    queries = [
        (str(i), {"question": r.question, "answer": r.answer, "ground_truth": r.ground_truth})
        for i, r in enumerate(asked)
    ]
    await run_job(job, queries, len(records), folder / VERDICTS)
    verdicts: list[JudgeText] = pq.read_table(folder / VERDICTS).to_pylist()
    judged = [replace(record, judge=verdict) for record, verdict in zip(records, verdicts, strict=True)]
    write_records(folder / RESPONSES, judged)
    return agreement(judged)


def _answer_of(record: ResponseRecord) -> str | None:
    r"""The answer without commands.

    Responses graded before the grader took commands out keep the answer that it found with them in place: with a
    command in it, or not the last one where a command stands between `\boxed` and its brace.
    """
    box = boxed_answer(strip_attempted_calls(record.text))
    return record.answer if box == boxed_answer(record.text) else box


async def _ask(judge: AnswerJudge, row: dict[str, Any]) -> JudgeText:
    try:
        return await judge.ask(row["question"], row["answer"], row["ground_truth"])
    except PermanentError as error:
        if error.concerns_all:
            raise
        return refusal(error)


def _hash(records: Sequence[ResponseRecord]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record.to_json()}\n".encode())
    return digest.hexdigest()
