"""An audit as one self-contained HTML page: words first, tables to sort, figures to ask.

Figures are SVG written here, with a small script for sorting and hovering: the page weighs a tenth
of what a plotting library would add, prints as it stands, and can be read without the script.
"""

from .page import audit_page, write_html

__all__ = ["audit_page", "write_html"]
