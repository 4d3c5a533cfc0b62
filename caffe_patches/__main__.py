"""`python -m caffe_patches`."""

import sys

from caffe_patches.cli import main

if __name__ == "__main__":
    sys.exit(main())
