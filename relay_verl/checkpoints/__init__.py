"""Checkpoints that say what they are: the records beside them, whether they are whole, which one a run resumes at, and
their export. verl writes and reads the checkpoints themselves."""
