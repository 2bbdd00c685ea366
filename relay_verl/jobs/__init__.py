"""Long jobs over many queries: they show how far they are, run over Ray's workers, and survive being killed."""

from relay_verl.errors import JobError
from relay_verl.jobs.job import Job
from relay_verl.jobs.run import run_job, tell_unanswerable

__all__ = ["Job", "JobError", "run_job", "tell_unanswerable"]
