"""`python -m tests.fuzz` runs a campaign; --help shows how long and with which families."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzz.campaign import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
