"""Patches a checkout of BVLC Caffe to run FuseNet's prototxts: `python -m caffe_patches`.

It adds our own source files (overlay/) and inserts a few lines (insertions/) into Caffe's files, at
places marked by short anchors. It uses only the standard library.
"""

import boundary.interrupts  # noqa: F401  # when `python -m` starts a command of this package
