"""What the commands with Python's own options share: exit codes and one-line errors.

(Commands with Caffe's flags are in caffe.flags.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from caffe.errors import CaffeError
from caffe.log import WARNING, init_log


def run(program: str, main: Callable[[], None]) -> NoReturn:
    """Run a command and end the process: 0 done, 1 bad input (one line), 130 interrupted.

    How nets are set up is not logged, unless GLOG_minloglevel asks for it.
    """
    if "GLOG_minloglevel" not in os.environ:
        init_log(WARNING)
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output went away: nothing is wrong, but Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CaffeError, OSError) as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
