"""The optional LLM judge (paper 4.2, C.2) and how far it agrees with the rule.

`judge` asks an endpoint, `prompt` is what it reads, `judge_results` judges finished results, `agreement` compares. May
import `traces` and what is below it.
"""
