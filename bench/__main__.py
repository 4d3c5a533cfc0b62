"""`python -m bench`: nets, data and metrics, one table after another; flags as bench.speed's."""

from bench import metrics, speed

if __name__ == "__main__":
    speed.main()
    print()
    metrics.main([])
