"""Defer heads: a score of each position by which the student's engine itself decides that the teacher writes next, as
CITER, Co-LLM and routing by entropy do it, without a command.

`heads` has the heads (torch), `head_info` what a head's file says, `head_folder` its folder. To add a head, add a name to
`HeadKind` and a class to `HEADS`.
"""
