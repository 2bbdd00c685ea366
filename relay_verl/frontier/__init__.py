"""Every way to share work between two models on one scale: accuracy against what it costs. `relay-verl frontier`.

    method          Method, a line of the list; method_list reads and checks it, methods.yaml is ours
    players         the models that take part, by the names that methods use
    measuring       asks every method through `relay_verl.evaluation`, whose folders make it resume
    query_router    whole questions to the teacher by the student's confidence, from responses that are there
    axis            what a response costs: teacher tokens, teacher FLOPs, money, seconds
    hull            convex hull and dominance; pure
    point           a method as a point; standing what dominates it, with paired intervals
    frontier_figure one picture an axis; frontier_page HTML, SVG, CSV and the sentences
    trial_plan      what a run will cost, from a few questions

May import `evaluation`, `report` and what is below them.
"""
