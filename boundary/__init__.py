"""Where files meet the programs: reads what strangers wrote, writes what must not be lost.

Below all other packages, and free of them: the engine, the data tools and the evaluation tools use
it alike, the latter two also on a pycaffe of BVLC's.
"""
