"""What verl loads, and all that changes verl's trainer on any device.

`rollout_worker` and `agent_loop` run the decoder inside verl's rollouts, `reward_manager` rewards groups, `clients` is
whom workers ask, `teacher_scores` has the teacher score the student's tokens where a run distils, `group_rows` makes
verl's rows, `replay_buffer` collects groups (`async_replay_buffer` in verl's asynchronous modes), `metrics` and
`replica_metrics` are what a step logs, `datasets` reads training files. `early_teachers`, `saving`, `teacher_watch`,
`step_line`, `ending`, `linear_schedule`, `weight_socket`, `call_free_loss` and `warmup_record` wrap functions of verl;
each says what would remove it. `relay_verl.plugin` registers all of them: a new change of verl is a file with
`install(module)` and a line there. May import `evaluation` and what is below it.
"""
