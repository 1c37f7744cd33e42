"""Words of messages that depend on a number."""


def counted(count: int, one: str, more: str = "") -> str:
    """Return a number with the word for one or for more, by default the same with an s."""
    return f"{count} {one if count == 1 else more or f'{one}s'}"
