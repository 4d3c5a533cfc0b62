"""`python -m bench` prints the tables of bench.speed, whose flags it takes, and bench.metrics."""

from bench import metrics, speed

if __name__ == "__main__":
    speed.main()
    print()
    metrics.main([])
