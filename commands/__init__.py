"""The commands of `arbitrage`, one or a few of a kind to a file; `cli` calls them.

Each file is imported when its command is, since most commands need little of the rest.
"""
