"""Results for people: tables, sentences, JSON and Markdown files, figures.

Importing this package loads neither matplotlib nor rich: the functions that need them do.
"""

from .files import check_folder, check_target, to_json, write_json, write_text
from .tables import Column, Table

__all__ = [
    "Column",
    "Table",
    "check_folder",
    "check_target",
    "to_json",
    "write_json",
    "write_text",
]
