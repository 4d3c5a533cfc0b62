"""Cases of the layers in caffe/layers/volume.py."""

from random import Random

from cases import Case, row


def video(rng: Random, least: int = 2, most: int = 5) -> list[int]:
    """The shape of a small batch of videos."""
    return [rng.randint(1, 2), rng.randint(1, 2), *(rng.randint(least, most) for _ in range(3))]


def kernel(rng: Random, pad: str) -> str:
    """Fields of a kernel that fits into a video of two and more."""
    size, depth = rng.randint(1, 2), rng.randint(1, 2)
    text = f"kernel_size: {size} kernel_depth: {depth} stride: {rng.randint(1, size)}"
    return f"{text} temporal_stride: {rng.randint(1, depth)} {pad}"


@row("Convolution3D", "convolution3d_param { num_output: 64 kernel_size: 3 kernel_depth: 3 }")
@row("Deconvolution3D", "convolution3d_param { num_output: 8 kernel_size: 4 kernel_depth: 4 }")
def convolution(rng: Random, name: str) -> Case:
    pads = "" if name.startswith("De") else f"pad: {rng.randint(0, 1)} temporal_pad: 1"
    text = f"num_output: 2 {kernel(rng, pads)}"
    text += f" bias_term: {str(rng.random() < 0.5).lower()}"
    field = rng.choice(["convolution3d_param", "convolution_param"])
    return Case(f"{field} {{ {text} }}", [video(rng)])


@row("Pooling3D", "pooling3d_param { kernel_size: 2 kernel_depth: 2 stride: 2 temporal_stride: 2 }")
def pooling(rng: Random, name: str) -> Case:
    method = rng.choice(["MAX", "AVE"])
    pad = f"pad: {rng.randint(0, 1)}" if method == "AVE" else ""
    field = rng.choice(["pooling3d_param", "pooling_param"])
    text = f"{field} {{ pool: {method} {kernel(rng, pad)} }}"
    return Case(text, [video(rng)], ("distinct",))


@row("PoolingND", "pooling_nd_param { pool: MAX kernel_size: 2 stride: 2 }")
def pooling_nd(rng: Random, name: str) -> Case:
    axes = rng.randint(1, 3)
    bottom = video(rng)[: 2 + axes]
    text = f"pool: {rng.choice(['MAX', 'AVE'])}"
    if rng.random() < 0.2:
        text += " global_pooling: true"
    else:
        size = rng.randint(1, 2)
        text += (
            f" kernel_size: {size} stride: {rng.randint(1, size)} pad: {rng.randint(0, size - 1)}"
        )
    return Case(f"pooling_nd_param {{ {text} }}", [bottom], ("distinct",))


@row("NdConvolution", "convolution_param { num_output: 64 kernel_shape { dim: 3 dim: 3 dim: 3 } }")
@row("NdPooling", "pooling_param { pool: MAX kernel_shape { dim: 1 dim: 2 dim: 2 } }")
def by_shapes(rng: Random, name: str) -> Case:
    axes = rng.randint(1, 3)
    size = [rng.randint(1, 2) for _ in range(axes)]

    def shape(field: str, dims: list[int]) -> str:
        return f"{field}_shape {{ {' '.join(f'dim: {n}' for n in dims)} }} "

    text = shape("kernel", size)
    if rng.random() < 0.7:
        text += shape("stride", [rng.randint(1, n) for n in size])
    if rng.random() < 0.5:
        text += shape("pad", [rng.randint(0, n - 1) for n in size])
    bottom = video(rng)[: 2 + axes]
    if name == "NdPooling":
        method = rng.choice(["MAX", "AVE"])
        return Case(f"pooling_param {{ pool: {method} {text} }}", [bottom], ("distinct",))
    group = bottom[1]
    return Case(f"convolution_param {{ num_output: {2 * group} group: {group} {text} }}", [bottom])


@row("VoxelSoftmax")
def voxel_softmax(rng: Random, name: str) -> Case:
    return Case("", [video(rng, 1, 3)])


@row("VoxelSoftmaxLoss")
def voxel_softmax_loss(rng: Random, name: str) -> Case:
    n, _, *rest = video(rng, 1, 3)
    classes = rng.randint(1, 4)
    bottoms = [[n, classes, *rest], [n, 1, *rest]]
    return Case("", bottoms, ("real", f"below {classes}"))
