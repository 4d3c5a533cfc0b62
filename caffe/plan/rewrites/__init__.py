"""The rewrites of plans, one per file, in the order in which they are tried.

docs/performance.md says what each saves.
"""

from __future__ import annotations

from caffe.plan.ir import Program
from caffe.plan.rewrites.convolve_lean import CONVOLVE_LEAN
from caffe.plan.rewrites.drop_copies import DROP_COPIES
from caffe.plan.rewrites.fold_batch_norm import FOLD_BATCH_NORM
from caffe.plan.rewrites.fuse_batch_norm import FUSE_BATCH_NORM
from caffe.plan.rewrites.grow_concats import GROW_CONCATS
from caffe.plan.rewrites.normalize_pixels import NORMALIZE_PIXELS
from caffe.plan.rewrites.pool_by_indices import POOL_BY_INDICES
from caffe.plan.rewrites.pool_values import POOL_VALUES
from caffe.plan.rewrites.prepare_convolutions import PREPARE_CONVOLUTIONS
from caffe.plan.rewrites.prepare_products import PREPARE_PRODUCTS
from caffe.plan.rewrites.rewrite import Misfit, Report, Rewrite, apply
from caffe.plan.rewrites.softmax_in_order import SOFTMAX_IN_ORDER
from caffe.plan.rewrites.work_in_place import WORK_IN_PLACE

__all__ = ["ORDER", "Misfit", "Report", "Rewrite", "apply_all"]

ORDER: tuple[Rewrite, ...] = (
    DROP_COPIES,
    POOL_BY_INDICES,
    POOL_VALUES,
    FUSE_BATCH_NORM,
    CONVOLVE_LEAN,
    PREPARE_CONVOLUTIONS,
    PREPARE_PRODUCTS,
    FOLD_BATCH_NORM,
    GROW_CONCATS,
    NORMALIZE_PIXELS,
    WORK_IN_PLACE,
    SOFTMAX_IN_ORDER,
)


def apply_all(program: Program) -> Report:
    """Apply all rewrites that are meant for such a program; returns what they did."""
    report = Report()
    for each in ORDER:
        if each.train if program.train else each.deploy:
            apply(each, program, report)
    return report
