"""Net: layers over named blobs, run forward and backward."""

from caffe.graph.parameters import Parameter
from caffe.net.net import Net

__all__ = ["Net", "Parameter"]
