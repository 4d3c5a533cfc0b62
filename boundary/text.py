"""Names from files on their way to people: terminals, tables, pictures."""

from __future__ import annotations


def shown(text: str) -> str:
    """A text as one line; what a terminal, a table or XML would act on or refuse becomes blanks.

    These are line ends, control characters, marks that reverse the direction of writing, and bytes
    that are no UTF-8.
    """
    return "".join(c if c.isprintable() else " " for c in text)


def plain_math(text: str) -> str:
    """`shown`, for matplotlib, which would read formulas between dollar signs."""
    return shown(text).replace("$", r"\$")
