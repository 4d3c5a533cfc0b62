"""Net: layers over named blobs, run forward and backward."""

from caffe.net.net import Net
from caffe.net.parameters import Parameter

__all__ = ["Net", "Parameter"]
