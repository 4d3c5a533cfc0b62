"""Converts RGB-D datasets, as they are downloaded, to the LMDBs that the networks train on."""

import boundary.interrupts  # noqa: F401  # when `python -m` starts a command of this package
