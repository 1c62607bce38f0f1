"""What a run is going to take, reckoned before anything is spent.

`tokens` guesses how long a text is, `census` counts the prompts that there are, `outlay` adds
up what the calls for them take, `forecast` says it as people ask for it.
"""
