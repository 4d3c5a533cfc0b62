"""The messages of Caffe's files and of its forks' texts, as `caffe_pb2`.

Installing the package generates caffe_pb2 from caffe.proto, basic_pb2 from basic.proto (what the
others share) and forks_pb2 from forks.proto; caffe_pb2 has the names of all three. In sources that
are not installed, importing this raises ImportError, or SystemExit for `python -m`.
"""

import os
import sys

try:
    from caffe.proto import caffe_pb2 as caffe_pb2
except ImportError:
    _folder = os.path.dirname(os.path.abspath(__file__))
    if os.path.exists(os.path.join(_folder, "caffe_pb2.py")):
        raise
    _sources = os.path.dirname(os.path.dirname(_folder))
    _text = f"{_folder} lacks caffe_pb2.py, which installing makes: pip install -e {_sources}"
    _error = SystemExit(f"error: {_text}") if sys.argv[:1] == ["-m"] else ImportError(_text)
    raise _error from None
