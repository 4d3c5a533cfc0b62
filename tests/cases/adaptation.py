"""Cases of the layers in caffe/layers/adaptation.py."""

from random import Random

from cases import Case, row, shape


# Its gradient is not the derivative.
@row("GradientScaler", "gradient_scaler_param { alpha: 10 max_iter: 10000 }", (), False)
def gradient_scaler(rng: Random, name: str) -> Case:
    return Case("gradient_scaler_param { max_iter: 10 }", [shape(rng, 0, 4)])
