"""The command line: one module a command, and what they share.

Nothing here imports JAX before a command runs, so that ``jaxpref --help`` answers at once.
"""
