"""The one exception of this package."""


class PatchError(Exception):
    """A checkout that cannot be patched: one clear line for each fault."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
