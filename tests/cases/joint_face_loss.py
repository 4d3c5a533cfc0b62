"""Cases of the losses of a face detector's cascade."""

from random import Random

from cases import Case, row


@row("JfdaLoss", "jfda_loss_param { drop_loss_rate: 0.3 }", gradient=(0, 1))
def jfda(rng: Random, name: str) -> Case:
    labels = sorted(rng.randint(0, 3) for _ in range(4))
    places, tops, kinds = [[4, 4]], 4, []
    if rng.random() < 0.5:
        places, tops = [[4, 4], [4, 6, 1, 1]], 5
    text = " ".join(f'top: "t{i}"' for i in range(tops))
    kinds = ["real"] * (1 + 2 * len(places)) + ["numbers " + " ".join(map(str, labels))]
    return Case(text, [[4, 2], *places, *places, [4, 1]], tuple(kinds))
