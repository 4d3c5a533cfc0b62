"""`python -m bench`: every measurement, one table after another."""

from bench import metrics, passes

passes.main()
print()
metrics.main()
