"""Tables of the benchmarks: class names, published label weights, sizes and splits.

Class names are those of the data sets' own lists, spelling included: the 40 classes of NYUv2 after
Gupta et al. (CVPR 2013), the 13 after Couprie et al. (2013), the 37 of SUN RGB-D after Song et al.
(CVPR 2015). ScanNet labels its frames with NYUv2's 40 classes (Dai et al., CVPR 2017).

The weights are the ones that the authors of FuseNet (Hazirbas, Ma et al., ACCV 2016) published with
their networks: weight(c) = (1 / f(c)) / median over all labels of (1 / f), where f(c) is the share
of label c in the pixels of those training frames that show it, and label 0, which the loss ignores,
counts as a label (`data_tools.class_weights --method authors`).
"""

from __future__ import annotations

from dataclasses import dataclass

# Each row holds the name and the published loss weight of a label; label 0 comes first.

NYUV2_40 = (
    ("(ignored)", 0.342837),
    ("wall", 0.272491),
    ("floor", 0.568953),
    ("cabinet", 0.432069),
    ("bed", 0.354511),
    ("chair", 0.82178),
    ("sofa", 0.506488),
    ("table", 1.133686),
    ("door", 0.81217),
    ("window", 0.789383),
    ("bookshelf", 0.380358),
    ("picture", 1.650497),
    ("counter", 1.0),
    ("blinds", 0.650831),
    ("desk", 0.757218),
    ("shelves", 0.950049),
    ("curtain", 0.614332),
    ("dresser", 0.483815),
    ("pillow", 1.842002),
    ("mirror", 0.635787),
    ("floor mat", 1.176839),
    ("clothes", 1.196984),
    ("ceiling", 1.111907),
    ("books", 1.927519),
    ("refridgerator", 0.695354),
    ("television", 1.057833),
    ("paper", 4.179196),
    ("towel", 1.571971),
    ("shower curtain", 0.432408),
    ("box", 3.705966),
    ("whiteboard", 0.549132),
    ("person", 1.282043),
    ("night stand", 2.329812),
    ("toilet", 0.992398),
    ("sink", 3.114945),
    ("lamp", 5.466101),
    ("bathtub", 1.085242),
    ("bag", 6.968411),
    ("otherstructure", 1.093939),
    ("otherfurniture", 1.33652),
    ("otherprop", 1.228912),
)

NYUV2_13 = (
    ("(ignored)", 0.469549),
    ("bed", 0.477072),
    ("objects", 1.127614),
    ("chair", 1.226367),
    ("furniture", 0.504991),
    ("ceiling", 1.702195),
    ("floor", 0.763852),
    ("wall decoration", 1.711334),
    ("sofa", 0.744392),
    ("table", 1.33274),
    ("wall", 0.34646),
    ("window", 0.872386),
    ("books", 1.16103),
    ("tv", 3.606198),
)

SUNRGBD_37 = (
    ("(ignored)", 0.352747),
    ("wall", 0.3829),
    ("floor", 0.452448),
    ("cabinet", 0.637584),
    ("bed", 0.377464),
    ("chair", 0.585595),
    ("sofa", 0.479574),
    ("table", 0.781544),
    ("door", 0.982534),
    ("window", 1.017466),
    ("bookshelf", 0.624581),
    ("picture", 2.589096),
    ("counter", 0.980794),
    ("blinds", 0.92034),
    ("desk", 0.667984),
    ("shelves", 1.172291),
    ("curtain", 0.86224),
    ("dresser", 0.921714),
    ("pillow", 2.154782),
    ("mirror", 1.187832),
    ("floor mat", 1.178115),
    ("clothes", 1.848545),
    ("ceiling", 1.428922),
    ("books", 2.849658),
    ("refridgerator", 0.771605),
    ("television", 1.656668),
    ("paper", 4.483506),
    ("towel", 2.209922),
    ("shower curtain", 1.12028),
    ("box", 2.790182),
    ("whiteboard", 0.706519),
    ("person", 3.994768),
    ("night stand", 2.220004),
    ("toilet", 0.972934),
    ("sink", 1.481525),
    ("lamp", 5.342475),
    ("bathtub", 0.750738),
    ("bag", 4.040773),
)


@dataclass(frozen=True)
class Dataset:
    """A benchmark, as its nets need it.

    labels: a table as above. published_weights: whether its weights were published for this data
    set; weights_by_default: whether the authors trained with them. size: width and height in pixels
    that the papers resize frames to. splits, images: names and frame counts of the training and the
    test split (None: not fixed by the papers).
    """

    name: str
    labels: tuple[tuple[str, float], ...]
    size: tuple[int, int]
    splits: tuple[str, str]
    images: tuple[int | None, int | None] = (None, None)
    published_weights: bool = True
    weights_by_default: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each label, label 0 first."""
        return tuple(name for name, _ in self.labels)

    @property
    def classes(self) -> int:
        """The number of classes without label 0."""
        return len(self.labels) - 1

    @property
    def weights(self) -> tuple[float, ...] | None:
        """The published loss weight of each label, label 0 first; None where none are published."""
        return tuple(w for _, w in self.labels) if self.published_weights else None


# The papers train on Gupta et al.'s train + val.
_NYUV2 = {"size": (320, 240), "splits": ("trainval", "test"), "images": (795, 654)}
# The paper leaves out 587 of the 5285 training frames: those of the RealSense camera are too noisy.
# The authors train SUN RGB-D with label weights and NYUv2 without.
_SUNRGBD = {"size": (224, 224), "splits": ("train", "test"), "images": (4698, 5050)}
# The benchmark publishes no labels of its test frames, so results are on val.
_SCANNET = {"size": (320, 240), "splits": ("train", "val"), "published_weights": False}

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("nyuv2-40", NYUV2_40, **_NYUV2),
        Dataset("nyuv2-13", NYUV2_13, **_NYUV2),
        Dataset("sunrgbd-37", SUNRGBD_37, **_SUNRGBD, weights_by_default=True),
        Dataset("scannet-40", NYUV2_40, **_SCANNET),
    )
}
