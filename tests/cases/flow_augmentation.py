"""Cases of the layers in caffe/layers/flow_augmentation.py."""

from random import Random

from cases import Case, row


def images(rng: Random, channels: int = 3) -> list[int]:
    return [rng.randint(1, 2), channels, rng.randint(4, 6), rng.randint(4, 6)]


@row(
    "DataAugmentation",
    "augmentation_param { recompute_mean: 1000 mean_per_pixel: false }",
    gradient=(),
    learns=False,
)
def data_augmentation(rng: Random, name: str) -> Case:
    bottom = images(rng)
    text = f"mean_per_pixel: {str(rng.random() < 0.5).lower()}"
    if rng.random() < 0.7:
        cut = 2 if rng.random() < 0.85 else 1
        text += f" crop_height: {bottom[2] - cut} crop_width: {bottom[3] - 2}"
    if rng.random() < 0.12:
        text += f" recompute_mean: {rng.randint(1, 3)}"
    else:
        text += "".join(f" mean: {rng.uniform(-1, 1)}" for _ in range(rng.choice([0, 3])))
    if rng.random() < 0.12:
        more = 'top: "y" top: "c"' if rng.random() < 0.5 else ""
        bottoms = [bottom, [bottom[0], 42, 1, 1]]
        return Case(f"augmentation_param {{ {text} }} {more}", bottoms)
    return Case(f"augmentation_param {{ {text} }}", [bottom])


@row("FlowAugmentation", "augmentation_param { crop_width: 448 crop_height: 320 }", (), False)
def flow_augmentation(rng: Random, name: str) -> Case:
    bottom = images(rng, 2)
    coefficients = [bottom[0], 42, 1, 1]
    text = f"augmentation_param {{ crop_width: {rng.randint(2, 5)} crop_height: 3 }}"
    return Case(text, [bottom, coefficients, coefficients])


@row("GenerateAugmentationParameters", 'augmentation_param { mode: "replace" }', (), False)
def generate(rng: Random, name: str) -> Case:
    n, mode = rng.randint(1, 2), rng.choice(["add", "replace", "regenerate"])
    bottoms = [[n, 42, 1, 1]]
    if rng.random() < 0.5:
        bottoms += [images(rng), images(rng)]
    return Case(f'augmentation_param {{ mode: "{mode}" }}', bottoms)


@row("BlackAugmentation", "black_augmentation_param { }", (), False)
def black(rng: Random, name: str) -> Case:
    first = images(rng)
    return Case('top: "a" top: "b"', [first, [first[0], 2, *first[2:]]])
