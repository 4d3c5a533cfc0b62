"""Scores a trained net on an LMDB of labelled RGB-D frames.

Computes one confusion matrix over all frames and prints the metrics of every class and a summary:
global pixel accuracy, mean class accuracy, mean IoU, frequency-weighted IoU. Pixels of label 0 are
ignored. Classes without true pixels are left out of the means and named.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boundary.text import shown
from boundary.writing import write_text
from data_tools.annotations import kinds
from data_tools.annotations.base import Annotations
from data_tools.classes import ClassTable
from data_tools.cli import DataError, check_distinct, progress, say, size, whole
from data_tools.fit import describe
from data_tools.labelling import Labelling, add_numbers, add_tool, introduce
from eval_tools import cli, compare, drawings, survey, tables
from eval_tools.caffe_log import read_log
from eval_tools.frames import mismatch, reshaped, with_classes
from eval_tools.labels import LabelSet, label_set
from eval_tools.network import Network, load
from eval_tools.records import Records
from eval_tools.report import Report
from eval_tools.scoring import Tally, Truths, Watcher, scene_names, score
from eval_tools.tables import Result


def arguments(module: str = "evaluate", text: str | None = __doc__) -> argparse.ArgumentParser:
    """The parser of this command and of eval_tools.report."""
    parser = cli.parser(text, module)
    cli.add_model(parser)
    parser.add_argument("lmdb", metavar="LMDB", help="five-channel records, from data_tools")
    parser.add_argument(
        "--versus",
        nargs=2,
        action="append",
        default=[],
        metavar=("DEPLOY", "WEIGHTS"),
        help="another model to compare with the first on the same frames; may be repeated. A "
        "packed model or an ONNX file stands alone",
    )
    _add_scored(parser.add_argument_group("scoring"))
    cli.add_inference(parser)
    _add_output(parser.add_argument_group("output"))
    return parser


def _add_scored(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--size",
        type=size,
        metavar="WxH",
        help="score at this resolution: frames are resized to the net's inputs, and its scores "
        "are resized bilinearly (default: the net is reshaped to the records)",
    )
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--labels",
        metavar="LMDB|DIR",
        help="other labels, for --size: an LMDB with the same keys, or label images with the "
        "records' names, with or without the number in front",
    )
    add_numbers(group, "--labels")
    add_tool(group, source)
    group.add_argument(
        "--group",
        metavar="KEY",
        help="also print metrics for each value of a key of the frames in dataset.json, e.g. "
        "camera",
    )
    cli.add_labels(group)


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--json", metavar="FILE", type=Path, help="write all metrics as JSON")
    group.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables as Markdown")
    group.add_argument(
        "--confusion",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="write the first model's confusion matrix as .npz or .csv, or draw it as .png, .svg "
        "or .pdf; may be repeated",
    )
    group.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        help="write the first model's report, one HTML file with all frames",
    )
    group.add_argument(
        "--log",
        metavar="LOG",
        action="append",
        default=[],
        help="show the curves of this training log in the report; may be repeated",
    )
    group.add_argument(
        "--bootstrap",
        metavar="N",
        type=whole(0, 100000),
        default=1000,
        help="number of resampled sets for intervals and tests (default: 1000; 0 for none)",
    )


def evaluate(
    args: argparse.Namespace,
    deploy: str,
    weights: str | None,
    name: str,
    watch: Watcher | None = None,
    annotations: Annotations | None = None,
) -> Tally:
    """Scores one model as the options say. annotations: what --labels-from holds.

    Raises DataError for unusable input.
    """
    records = Records(args.lmdb)
    network, labels = _load(args, records, deploy, weights)
    if args.size:
        _check_view(records, args.size)
    truths = Truths(records, args.labels, _labelling(args, labels, annotations))
    return score(
        network,
        records,
        labels,
        cli.options(args, args.size, args.classes),
        name=name,
        truths=truths,
        batch_size=args.batch_size,
        group=args.group,
        watch=watch,
    )


def _check_view(records: Records, size: tuple[int, int]) -> None:
    """Raises DataError if labels of --size show more, or less, than the records: frames that were
    cropped or padded have the aspect ratio of their records."""
    fit = records.info.get("options", {}).get("fit")
    height, width = next(iter(records)).size
    if fit in ("crop", "pad") and describe(fit, size, (width, height)):
        raise DataError(
            f"{records.path}: its frames became {width}x{height} by --fit {fit}, so that labels of "
            f"{size[0]}x{size[1]} show something else; expected --size of their aspect ratio"
        )


def _labelling(args: argparse.Namespace, labels: LabelSet, found: Annotations | None) -> Labelling:
    """How the true labels are read that do not come from records; names are the net's."""
    if found is None:
        return Labelling(ignore=args.ignore_label, zero_based=args.zero_based)
    if args.ignore_label or args.zero_based:
        raise DataError("--ignore-label and --zero-based go with the pictures of --labels DIR")
    return Labelling(ClassTable(labels.names), annotations=found)


def _annotations(args: argparse.Namespace) -> Annotations | None:
    """What --labels-from holds, and says so."""
    if args.labels_from is None:
        if args.labels_kind:
            raise DataError("--labels-kind goes with --labels-from")
        return None
    found = kinds.read(args.labels_from, args.labels_kind)
    if found is None:
        raise DataError(f"{args.labels_from}: holds pictures; --labels takes them")
    introduce(found)
    return found


def _load(
    args: argparse.Namespace, records: Records, deploy: str, weights: str | None
) -> tuple[Network, LabelSet]:
    """A model and its labels. Says where it was trained on another depth or size."""
    network = load(deploy, weights, args.gpu, args.score, args.scene, args.trust)
    if warning := mismatch(records, deploy):
        say(warning)
    if args.size is None and (note := reshaped(records, network)):
        say(note)
    info = with_classes(records.info, deploy, network.values)
    return network, label_set(network.values, info, args.names, args.classes)


def _models(args: argparse.Namespace) -> list[tuple[str, str | None, str]]:
    """DEPLOY, WEIGHTS and name of each model."""
    models = [(args.deploy, args.weights), *map(tuple, args.versus)]
    return [(*model, name) for model, name in zip(models, _names(models), strict=True)]


def compared(args: argparse.Namespace, report: Report | None = None) -> list[Result]:
    """Scores the model and those to compare it with. Raises DataError."""
    annotations = _annotations(args)
    tallies = []
    for model in _models(args):
        watch = report.other() if report and tallies else report
        tallies.append(evaluate(args, *model, watch, annotations))
    _check_alike([(tally.name, tally.labels) for tally in tallies])
    if args.bootstrap == 0 or len(tallies[0].keys) < 2:
        return [Result(tally) for tally in tallies]
    frames = [np.stack(tally.frames) for tally in tallies]
    results = [Result(tallies[0], compare.intervals(frames[0], args.bootstrap))]
    for tally, own in zip(tallies[1:], frames[1:], strict=True):
        difference = compare.paired(own, frames[0], args.bootstrap)
        results.append(Result(tally, compare.intervals(own, args.bootstrap), difference))
    return results


def _check_alike(models: Sequence[tuple[str, LabelSet]]) -> None:
    (first, labels), *others = models
    for name, own in others:
        if own.scored != labels.scored:
            raise DataError(
                f"{first} and {name} score different labels ({len(labels.scored)} and "
                f"{len(own.scored)}); --classes can name those that both have"
            )


def _names(models: Sequence[tuple[str, str | None]]) -> list[str]:
    """Unique names of the models: the weights' stems, else their paths, else both files' paths.

    A packed model is its own weights' file.
    """
    for name in (
        lambda deploy, weights: Path(weights or deploy).stem,
        lambda deploy, weights: weights or deploy,
        lambda deploy, weights: f"{deploy}+{weights}" if weights else deploy,
    ):
        names = [name(*model) for model in models]
        if len(set(names)) == len(names):
            return names
    raise DataError("--versus: the same model twice")


def run(args: argparse.Namespace) -> None:
    """Scores as the options say, prints the tables and writes the files. Raises DataError."""
    _check_files(args)
    for path in args.confusion:
        drawings.check_matrix_file(path)
    runs = [read_log(path) for path in args.log]
    report = None
    if args.report:
        report = Report(len(Records(args.lmdb)), models=1 + len(args.versus))
    results = compared(args, report)
    found = tables.tables(results)
    print("\n\n".join([*(table.plain() for table in found), shown(tables.notes(results))]))
    if args.json:
        write_text(args.json, json.dumps(tables.numbers(results), indent=1) + "\n", DataError)
    if args.markdown:
        parts = [tables.as_markdown(tables.notes(results)), *(table.markdown() for table in found)]
        write_text(args.markdown, "\n\n".join(parts) + "\n", DataError)
    for path in args.confusion:
        _write_confusion(path, results[0].tally)
    if report:
        report.write(args.report, results, str(args.lmdb), runs)


def without_labels(args: argparse.Namespace) -> bool:
    """Whether the frames are known to have no true labels, and --labels names none."""
    if args.labels is not None or args.labels_from is not None:
        return False
    records = Records(args.lmdb)
    return records.info.get("labeled") is False or next(iter(records)).label is None


def run_survey(args: argparse.Namespace) -> None:
    """As `run`, with a report, for frames without labels: what the models say of them."""
    _check_files(args)
    for option, given in (("--confusion", args.confusion), ("--group", args.group)):
        if given:
            raise DataError(f"{args.lmdb}: its frames have no labels, which {option} needs")
    runs = [read_log(path) for path in args.log]
    records = Records(args.lmdb)
    models = [(name, *_load(args, records, *model)) for *model, name in _models(args)]
    _check_alike([(name, labels) for name, _, labels in models])
    report = Report(len(records), models=len(models))
    frames = progress(records, len(records), models[0][0])
    options = [cli.options(args, args.size, args.classes)] * len(models)
    surveys = survey.survey(models, frames, options, args.batch_size, report.unlabeled)
    found = survey.tables(surveys)
    print("\n\n".join([*(table.plain() for table in found), shown(survey.notes(surveys))]))
    if args.json:
        text = json.dumps(survey.numbers(surveys), indent=1) + "\n"
        write_text(args.json, text, DataError)
    if args.markdown:
        parts = [tables.as_markdown(survey.notes(surveys)), *(one.markdown() for one in found)]
        write_text(args.markdown, "\n\n".join(parts) + "\n", DataError)
    scenes = scene_names(records.info, models[0][1].scenes)
    report.write_survey(args.report, surveys, str(args.lmdb), scenes, runs)


def _check_files(args: argparse.Namespace) -> None:
    outputs = [("--json", args.json), ("--markdown", args.markdown), ("the report", args.report)]
    outputs = [(what, path) for what, path in outputs if path is not None]
    outputs += [("--confusion", path) for path in args.confusion]
    for _, path in outputs:
        cli.check_output(path)
    outputs += [("--confusion's scenes", _of_scenes(path)) for path in args.confusion]
    inputs = [("LMDB", args.lmdb), *cli.model_files(args), *cli.label_files(args.labels)]
    if args.labels_from:
        files = [path for path in args.labels_from.rglob("*") if path.is_file()]
        inputs += [("--labels-from", path) for path in (args.labels_from, *files)]
    inputs += [("--versus", path) for model in args.versus for path in model if path]
    inputs += [("--log", path) for path in args.log]
    check_distinct(outputs, inputs)


def _of_scenes(path: Path) -> Path:
    """The file of the scenes' matrix, beside that of the labels'."""
    return path.with_stem(f"{path.stem}_scenes")


def _write_confusion(path: Path, tally: Tally) -> None:
    drawings.write_matrix(path, tally.matrix)
    if tally.scenes:
        drawings.write_matrix(_of_scenes(path), tally.scenes)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command. Raises DataError."""
    args = cli.parsed(arguments(), argv)
    cli.use_engine(args)
    run(args)


if __name__ == "__main__":
    cli.run("evaluate", main)
