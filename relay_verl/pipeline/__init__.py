"""The stages of a whole project as processes of their own: each can be killed, and the next run takes it up.

`training` runs verl's trainer and exports its student, `warmup` the warm-up, `processes` any command. To add a stage,
write a function that returns at once where its result is there already. May import `trainer` and what is below it.
"""

from relay_verl.pipeline.processes import StageError, relay_verl, run
from relay_verl.pipeline.training import Run, train
from relay_verl.pipeline.warmup import warm_up

__all__ = ["Run", "StageError", "relay_verl", "run", "train", "warm_up"]
