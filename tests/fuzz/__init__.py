"""Mutated files for every reader: no input may crash, hang, take gigabytes or show a traceback.

`corpus` makes small sound files, `mutate` spoils them, `families` gives them to the readers and
commands, `worker` runs the inputs in processes that may die, `campaign` shares them out and counts.
"""
