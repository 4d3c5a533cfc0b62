"""A page on this machine that labels the frames one gives it, or those of a camera.

`server.py` answers the browser, `model.py` labels, `sources.py` has the cameras and recordings, and
`message.py` is the form in which frames and answers travel.
"""

FIRST, LAST = 8000, 8099  # the ports that are tried
