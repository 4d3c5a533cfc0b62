"""One HTML file that shows how a net did: figures, curves, confusion, and every frame.

The file is self-contained: no network, no script or style from elsewhere. `page.html`, `page.css`
and `page.js` beside this file are its parts.
"""

from eval_tools.report.page import Report

__all__ = ["Report"]
