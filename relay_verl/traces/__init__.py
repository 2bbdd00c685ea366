"""What a response was: records, the files and folders of them, and what they say about one question. Pure.

`records` is the format of a line, `results` of a folder, `pieces` cuts a response by author, `verdicts` says whose
verdict counts. May import `benchmarks` and what is below it.
"""
