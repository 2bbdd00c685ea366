"""Long jobs over many queries: they show how far they are, run over Ray's workers, and survive being killed.

`run` runs a `Job`, `store` keeps what is finished, `pool` spreads the work over processes, `formats` are the kinds of
output. To add a job, describe it as a `Job` where its work stands, as `relay_verl.data.generate` does. May import
`config`, `engines` and what is below them.
"""

from relay_verl.errors import JobError
from relay_verl.jobs.run import Job, run_job, tell_unanswerable

__all__ = ["Job", "JobError", "run_job", "tell_unanswerable"]
