"""The report of an evaluation in one HTML file: metrics, curves, confusion matrix, all frames.

The file is self-contained and loads no script or style from elsewhere. It is assembled from
`page.html`, `page.css` and `page.js` in this folder, and of what eval_tools.pages shares.
"""

from eval_tools.report.page import Report

__all__ = ["Report"]
