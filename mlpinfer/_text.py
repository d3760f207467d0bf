"""Text that is safe to print, whatever a file or a library says."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text with whatever a terminal would not print, but obey, escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def quoted(value: object, limit: int = 80) -> str:
    """Text from a stranger's file, safe to print: ASCII, escaped, at most `limit` characters.

    Only exact ``str``, ``bytes``, numbers and types are shown; anything else is shown as its type, so that
    no foreign ``__repr__`` runs and no deep structure is walked.
    """
    if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    if type(value) in (str, bytes):
        text = ascii(value[: limit + 1])  # type: ignore[index]
    elif type(value) in (int, float, bool, type(None)):
        text = ascii(value) if not isinstance(value, int) or value.bit_length() < 200 else "a huge integer"
    else:
        text = f"<{(value if isinstance(value, type) else type(value)).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def said(error: BaseException) -> str:
    """What a library's error says, a stranger's file perhaps: ASCII, escaped, at most 100 characters."""
    return ascii(str(error))[1:-1][:100]
