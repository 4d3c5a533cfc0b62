"""`python -m fuzz.corpus FOLDER` writes the sound files."""

import contextlib
import io
import sys
from pathlib import Path

from fuzz.corpus import sound

if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        sound.write(Path(sys.argv[1]))
