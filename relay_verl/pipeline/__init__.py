"""The stages of a whole project as processes of their own: each can be killed, and the next run continues it.

`processes` runs one, `training` and `warmup` are verl's two trainers as stages, `steps` runs many. May import `trainer`
and what is below it.
"""

from relay_verl.pipeline.processes import StageError, relay_verl, run
from relay_verl.pipeline.steps import Step, run_steps
from relay_verl.pipeline.training import Run, put_on_card, train
from relay_verl.pipeline.warmup import warm_up

__all__ = ["Run", "StageError", "Step", "put_on_card", "relay_verl", "run", "run_steps", "train", "warm_up"]
