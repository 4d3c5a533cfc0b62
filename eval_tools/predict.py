"""Labels frames with a trained net: one frame, folders of frames, a recording, or an LMDB.

For each frame the command writes OUT/NAME.png, its labels as a palette PNG (the indices are the
labels), and on request NAME_overlay.png and NAME_probability.png (the probability of the predicted
label, 0..1 as 0..255). NAME is the colour file's; a record's has what would mean
something in a path escaped as in URLs (/ is %2F). Colour is resized bilinearly and depth by nearest
neighbour to the net's inputs. Depth must become 0..255 as in the net's training records, which
--dataset names.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from boundary import names, packed
from boundary.errors import shown
from boundary.late import tqdm
from boundary.writing import write_bytes
from data_tools import framing, notes
from data_tools.cli import DataError, add_max_pixels, check_distinct, progress, say, size
from data_tools.depth import DepthRange, DepthUnit
from data_tools.record import Frame, RecordFormat, nearest
from data_tools.recordings import kinds
from eval_tools import cli, drawings, scannet, video
from eval_tools.frames import (
    Source,
    dataset_info,
    default_unit,
    mismatch,
    named,
    names_of,
    read,
    record,
    record_format,
    record_of,
    reshaped,
    trained_on,
    with_classes,
    with_depth,
)
from eval_tools.inference import Segmented, at_size, batches, segment
from eval_tools.labels import LabelSet, label_set
from eval_tools.network import Network, load
from eval_tools.records import Record, Records

LEGEND = "legend.png"


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "predict")
    cli.add_model(parser)
    _add_frames(parser.add_argument_group("frames"))
    kinds.add_options(parser.add_argument_group("recording (--sequence)"))
    cli.add_inference(parser)
    _add_output(parser.add_argument_group("output"))
    return parser


def _add_frames(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--rgb", metavar="F", help="colour: an image, a folder, or a pattern with *")
    group.add_argument("--depth", metavar="F", help="depth: the same; PNG (16-bit), EXR, NPY, TIFF")
    group.add_argument("--lmdb", metavar="LMDB", help="records of data_tools instead of files")
    group.add_argument(
        "--sequence",
        type=Path,
        metavar="SOURCE",
        help="a camera's recording, as data_tools.sequence reads it, instead of files",
    )
    framing.add_options(group)
    framing.add_fit(group, None, "as the net was trained, if --dataset says so, else crop")
    group.add_argument(
        "--depth-range",
        type=DepthRange.parse,
        metavar="authors|valid|MIN:MAX",
        help="mapping of depth to 0..255 (default: that of the net's training data, if --dataset "
        "or the prototxt states it, else authors)",
    )
    group.add_argument(
        "--dataset",
        metavar="LMDB|JSON",
        help="the net's training data, for the depth range, class names and colours",
    )
    add_max_pixels(group)


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("predictions"),
        metavar="OUT",
        help="folder, or a .png file for a single frame (default: predictions)",
    )
    group.add_argument(
        "--size",
        type=_size,
        metavar="original|WxH",
        help="size of the output (default: that of the net's inputs, or of the records)",
    )
    group.add_argument(
        "--overlay",
        action="store_true",
        help="also write the frame, at its own size, tinted by its labels",
    )
    group.add_argument(
        "--probabilities",
        action="store_true",
        help="also write the probabilities of the predicted labels",
    )
    group.add_argument(
        "--video",
        type=Path,
        metavar="OUT.mp4",
        help="also write a video: colour, depth and labels side by side (.mp4 or .avi)",
    )
    group.add_argument(
        "--fps",
        type=video.rate,
        metavar="N",
        help="frames of the video a second (default: the recording's, or 10)",
    )
    cli.add_labels(group)
    group.add_argument(
        "--submission",
        choices=["scannet"],
        help="write files for the benchmark: 640x480, with its file names and labels",
    )


def _size(text: str) -> str | tuple[int, int]:
    return text if text == "original" else size(text)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command. Raises DataError."""
    parser = arguments()
    args = cli.parsed(parser, argv)
    given = [args.lmdb, args.sequence, args.rgb or args.depth]
    if sum(one is not None for one in given) != 1:
        parser.error("expected --rgb and --depth, or --sequence, or --lmdb")
    _check_options(parser, args)
    cli.use_engine(args)
    network = load(args.deploy, args.weights, args.gpu, args.score, args.scene, args.trust)
    source = args.dataset or (args.deploy if packed.is_packed(args.deploy) else args.lmdb)
    info = dataset_info(source) if source else {}
    if args.submission == "scannet":
        args.classes, args.size = scannet.classes(network.values), scannet.SIZE
    info = with_classes(info, args.deploy, network.values)
    labels = label_set(network.values, info, args.names, args.classes)
    output = Output(args, labels)
    rate = None
    if args.sequence:
        frames, inputs, rate = _sequence(args, network)
    else:
        frames, inputs = _records(args, network) if args.lmdb else _files(args, network)
    output.check(list(inputs), [file for files in inputs.values() for file in files])
    said: notes.Notes = {}
    frames = progress(_noted(frames, said), len(inputs), "frames")
    with video.opened(args.video, args.fps or rate, labels.colors) as film:
        _run(args, network, frames, output, film)
    notes.tell(said)


def _check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the command for options that would say nothing about the frames."""
    if args.sequence is None and (useless := kinds.given(args)):
        parser.error(f"{', '.join(useless)}: expected --sequence, whose options these are")
    told = ("intrinsics", "depth_intrinsics", "extrinsics", "extrinsics_direction", "no_reading",
            "strict", "fit")  # fmt: skip
    useless = [f"--{name.replace('_', '-')}" for name in told if getattr(args, name)]
    if args.lmdb and useless:
        parser.error(f"{', '.join(useless)}: records of an LMDB are taken as they are")


def _noted(frames: Iterable[Record], said: notes.Notes) -> Iterator[Record]:
    """The frames; what is to be said of them is added to `said`."""
    for frame in frames:
        notes.add(said, shown(frame.key), frame.notes)
        yield frame


def _run(
    args: argparse.Namespace,
    network: Network,
    frames: Iterable[Record],
    output: Output,
    film: video.Film | None,
) -> None:
    wanted = args.size if args.size != "original" else None
    for batch in batches(frames, args.batch_size, lambda frame: (frame.size, frame.picture.shape)):
        if args.size == "original":
            wanted = batch[0].picture.shape[1::-1]
        options = cli.options(args, wanted, args.classes)
        for frame, found in zip(
            batch, segment(network, batch, options, args.probabilities), strict=True
        ):
            output.write(frame, found)
            if film is not None:
                film.add(frame, found.label, whole=args.size is not None)


def _records(
    args: argparse.Namespace, network: Network
) -> tuple[Iterator[Record], dict[str, list[Path]]]:
    """The LMDB's frames, and for the name of each its files, which are none.

    Warns if their depth differs in format from the training data, or their size from the net's.
    """
    records = Records(args.lmdb)
    if warning := mismatch(records, args.deploy, args.dataset):
        say(warning)
    if args.size is None and (note := reshaped(records, network)):
        say(note)
    return named(records), {name: [] for name in names_of(records)}


def _files(
    args: argparse.Namespace, network: Network
) -> tuple[Iterator[Record], dict[str, list[Path]]]:
    """The files' frames at the size of the net's inputs, with depth as in the training data; and
    the files of each by its name."""
    planes = network.inputs.values()
    for option, given, needed in (
        ("--rgb", args.rgb, any(p.start == 0 for p in planes)),
        ("--depth", args.depth, network.takes_depth),
    ):
        if needed and given is None:
            raise DataError(f"{args.deploy} looks at {option[2:]}: {option} is missing")
    pairs = Source(args.rgb, args.depth).pairs()
    if args.intrinsics and None in (args.rgb, args.depth):
        raise DataError("--intrinsics needs --rgb and --depth: depth is projected into colour")
    form = _form(args, network, args.depth_unit or default_unit(next(iter(pairs.values()))))
    if args.depth is not None:
        every = list(pairs.values())
        form = framing.settled(form, lambda i: with_depth(every[i]), len(every), args.depth)
    frames = (read(files, name, form) for name, files in pairs.items())
    return frames, {name: list(files.values()) for name, files in pairs.items()}


def _sequence(
    args: argparse.Namespace, network: Network
) -> tuple[Iterator[Record], dict[str, list[Path]], float | None]:
    """The recording's frames as those of `_files`, the files by name, and frames a second."""
    recording = kinds.open_recording(args.sequence, args, kinds.settings(args))
    form = _form(args, network, args.depth_unit or recording.unit())
    names = recording.names
    form = framing.settled(form, recording.load, framing.near(recording), args.sequence)
    inputs: dict[str, list[Path]] = {name: [] for name in names}
    inputs[names[0]] = recording.inputs()
    loaded = ((name, recording.load(index)) for index, name in enumerate(names))
    frames = (_seen(one, name, form, network) for name, one in loaded)
    return frames, inputs, recording.rate()


def _seen(frame: Frame, name: str, form: RecordFormat, network: Network) -> Record:
    """A recording's frame. Of a net that does not look at depth, depth may be unusable."""
    if not network.takes_depth:
        with suppress(DataError):
            return record_of(frame, name, form)
        return record(frame.color, None, name, form, frame.files)
    return record_of(frame, name, form)


def _form(args: argparse.Namespace, network: Network, unit: DepthUnit) -> RecordFormat:
    """How files' frames become the net's inputs. unit: of their depth."""
    trained = trained_on(args.deploy, args.dataset)
    form = record_format(network, unit, trained, args.depth_range, args.fit)
    doctor = framing.doctor_fields(args) if network.takes_depth else {}
    return replace(form, rig=framing.rig(args), **doctor)


class Output:
    """Writes the images of each frame."""

    def __init__(self, args: argparse.Namespace, labels: LabelSet) -> None:
        self._args, self._labels, self._colors = args, labels, labels.colors
        # Files have names of their own; a record's key may hold anything.
        self._name = names.component if args.lmdb else str
        self._file = args.out.suffix.lower() == ".png" and not args.out.is_dir()

    def check(self, frames: list[str], inputs: list[Path]) -> None:
        """Makes the folder and draws the legend of overlays.

        frames: the names of all frames. inputs: their files. Raises DataError if it cannot, or if
        a picture would overwrite another or an input.
        """
        out = self._args.out
        if self._file:
            cli.check_output(out)
            if len(frames) > 1:
                raise DataError(f"{out}: one file for {len(frames)} frames; expected a folder")
        elif out.exists() and not out.is_dir():
            raise DataError(f"{out}: not a folder")
        legend = [("the legend", out / LEGEND)] if self._args.overlay and not self._file else []
        film = [("--video", self._args.video)] if self._args.video else []
        check_distinct([*legend, *film, *self._outputs(frames)], self._inputs(inputs))
        if not self._file:
            out.mkdir(parents=True, exist_ok=True)
        for _, path in legend:
            picture = drawings.legend(self._labels.names, self._colors)
            write_bytes(path, drawings.png(picture), DataError)

    def _inputs(self, files: list[Path]) -> Iterator[tuple[str, str | Path]]:
        yield from (("the input", file) for file in files)
        yield from cli.model_files(self._args)
        for option in ("lmdb", "dataset"):
            if given := getattr(self._args, option):
                yield f"--{option}", given

    def _outputs(self, frames: list[str]) -> Iterator[tuple[str, Path]]:
        """All pictures that will be written, with what they are."""
        for name in frames:
            for what, path in self._paths(name).items():
                yield f"the {what} of frame {shown(name)}", path

    def _paths(self, name: str) -> dict[str, Path]:
        """The files of a frame's 'labels' and, where asked for, 'overlay' and 'probability'."""
        if self._args.submission == "scannet":
            path = self._args.out / scannet.file_name(name)
        else:
            path = self._args.out if self._file else self._args.out / f"{self._name(name)}.png"
        asked = {"overlay": self._args.overlay, "probability": self._args.probabilities}
        return {"labels": path, **{what: _beside(path, what) for what in asked if asked[what]}}

    def write(self, frame: Record, found: Segmented) -> None:
        """Writes a frame's images and prints the path of its labels."""
        if self._args.submission == "scannet":
            data = drawings.png(scannet.nyu40(found.label, self._labels))
        else:
            data = drawings.label_png(found.label, self._colors)
        paths = self._paths(frame.key)
        path = paths["labels"]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data, DataError)
        if self._args.overlay:
            tinted = drawings.overlay(*self._on_the_frame(frame, found.label), self._colors)
            write_bytes(paths["overlay"], drawings.png(tinted), DataError)
        if self._args.probabilities:
            sure = np.rint(255 * found.confidence).astype(np.uint8)
            write_bytes(paths["probability"], drawings.png(sure), DataError)
        tqdm.tqdm.write(shown(path))  # to stdout, around a progress bar

    def _on_the_frame(self, frame: Record, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The frame's colours at their full size, or at that of --size if it is larger, and the
        labels at that size.
        """
        size = max(frame.picture.shape[1::-1], label.shape[::-1], key=math.prod)
        # Without --size, labels are those of the net's input: perhaps a part of the frame.
        if self._args.size is None and not frame.placement.whole:
            label = frame.placement.back(nearest, label, size)
        return at_size(drawings.smooth, frame.picture, size), at_size(nearest, label, size)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.stem}_{what}.png")


if __name__ == "__main__":
    cli.run("predict", main)
