"""Datasets and what makes them: the call warm-up (paper 3.1) and the teacher-solvability filter (paper 3.2.2)."""
