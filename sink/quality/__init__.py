"""Whether samples are worth training on: duplicates, leaked tests, balance, diversity.

Nothing here reads a run: each takes texts and figures, and can be used before a prompt is
paid for as well as on what a run has left.
"""
