"""The command line: one module a command, and what they share.

The modules here import at the top what options and help need, and inside each command what it
computes with: ``jaxpref --help`` costs the import of the package itself, a second or so of which
JAX is most, and neither flax nor polars nor matplotlib.
"""
