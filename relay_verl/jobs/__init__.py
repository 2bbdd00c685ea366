"""Long jobs over many queries: they show their progress, run over Ray's workers, and survive being killed.

A job names its queries and how one is answered, `run_job` runs it and continues it; `store` keeps the answers, `pool`
the workers. May import the algorithm.
"""

from relay_verl.errors import JobError
from relay_verl.jobs.job import Job
from relay_verl.jobs.run import run_job
from relay_verl.jobs.unanswerable import tell_unanswerable

__all__ = ["Job", "JobError", "run_job", "tell_unanswerable"]
