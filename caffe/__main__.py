"""`python -m caffe` is the `caffe` command."""

import sys

from caffe.commands.cli import main

sys.exit(main())
