"""Our warnings reach standard error in every process, whatever other packages do to the root logger.

vLLM's server imports `model_hosting_container_standards`, which sets the root logger and all of its handlers to ERROR
(`configure_root_logger`, unless SAGEMAKER_CONTAINER_LOG_LEVEL or LOG_LEVEL says otherwise). verl imports that server in
the driver and in every worker that may start one, so that a warning of ours was dropped there: of the first failed call
to the teacher, of a job's first failed query, of a damaged shard.

Invariant: a warning is written once. Where a handler of the root logger takes it, ours does not.

Remove this when vLLM no longer changes the root logger.
"""

from __future__ import annotations

import logging
import sys

FORMAT = "%(levelname)s:%(asctime)s:%(message)s"
"""verl's, which our warnings have where the root logger writes them."""


class UnheardHandler(logging.Handler):
    """Writes the records that no handler of the root logger takes to what is standard error by then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if not any(record.levelno >= handler.level for handler in logging.getLogger().handlers):
            print(self.format(record), file=sys.stderr, flush=True)


def install() -> None:
    """Let warnings of relay_verl be heard in this process; a second call does nothing."""
    logger = logging.getLogger("relay_verl")
    if any(isinstance(handler, UnheardHandler) for handler in logger.handlers):
        return
    handler = UnheardHandler()
    handler.setFormatter(logging.Formatter(FORMAT))
    logger.addHandler(handler)
    # a level of its own: without one it has the root logger's
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
