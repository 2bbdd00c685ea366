"""Responses to read: the HTML page of `relay-verl trace`, and relay cards as pictures.

`page` writes the page, `card` a card, `collect` gathers the responses for both. May import `report` and what is below.
"""
