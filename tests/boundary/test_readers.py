"""Every reader of files is under the guard, boundary.reading: a walk through all sources."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("caffe", "caffe_patches", "netgen", "data_tools", "eval_tools", "fusenet")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# What opens or decodes a file: functions of modules, and methods of any object.
FUNCTIONS = {
    "cv2.imread", "cv2.imreadmulti", "cv2.imdecode", "cv2.VideoCapture", "cv2.FileStorage",
    "csv.reader", "csv.DictReader", "h5py.File", "json.load", "json.loads", "lmdb.open", "np.load",
    "np.fromfile", "np.loadtxt", "np.genfromtxt", "np.memmap", "open", "os.open", "pickle.load",
    "pickle.loads", "plyvel.DB", "tarfile.open", "torch.load", "torch.jit.load", "zipfile.ZipFile",
    "Image.open", "text_format.Parse", "text_format.Merge", "zlib.decompress", "gzip.open",
    "tomllib.load", "yaml.safe_load", "os.fdopen", "ElementTree.parse", "ElementTree.fromstring",
}  # fmt: skip
METHODS = {
    "read_text",
    "read_bytes",
    "ParseFromString",
    "MergeFromString",
    "FromString",
    "fromfile",
}
OWN = {"files.read_text", "reading.read_text", "reading.read_bytes"}  # under the guard themselves
GUARDS = {"reading", "guard", "_reading"}

# Where there is no guard, and why.
EXCEPTIONS = {
    "caffe/data/annotated.py:parse_annotated": "names the record, not the file",
    "caffe/data/datum.py:parse_datum": "names the record, not the file",
    "caffe/formats/db.py:_make_leveldb": "writes",
    "caffe/formats/db.py:_make_lmdb": "writes",
    "caffe/formats/prototext.py:_fill": "parse explains the error with its line and column",
    "caffe/formats/meaning.py:settle": "our own texts",
    "caffe/formats/wire.py:_add_blob": "writes: the outline is our own",
    "caffe/formats/wire.py:_makes_sense": "under the guard of read",
    "caffe/formats/wire.py:_parsed": "under the guard of read",
    "caffe/kernels/processor.py:_cpuinfo": "the system's own file",
    "caffe/process/memory.py:_lines": "the system's own files",
    "caffe/process/waiting.py:_running": "the system's own file",
    "caffe/solver/resume.py:fingerprint": "has an error of its own for each kind",
    "caffe/solver/resume.py:read": "has an error of its own for each kind",
    "caffe/solver/resume.py:write": "writes",
    "caffe/tools/compute_image_mean.py:mean": "parsed before",
    "caffe_patches/checkout.py:_overlay_files": "our own files",
    "caffe_patches/checkout.py:_read": "a file of a checkout, as bytes",
    "caffe_patches/checkout.py:load_pin": "our own file",
    "caffe_patches/insertions.py:load": "our own file",
    "caffe_patches/transaction.py:roll_back": "our own journal",
    "data_tools/layers.py:parse": "a text in a prototxt, with an error of its own",
    "data_tools/store.py:_is_ours": "answers no where it is not readable",
    "data_tools/store.py:_open": "writes: our own partial LMDB",
    "data_tools/store.py:_resumes": "answers no where it is not readable",
    "eval_tools/deploy.py:read_deploy": "leaves it to Caffe to say what is wrong",
    "eval_tools/pages/__init__.py:asset": "our own file",
    "netgen/filelist.py:settings": "a text in a prototxt, with an error of its own",
    "netgen/papers.py:paper_files": "our own text",
}


def readers(source: str) -> list[tuple[str, int]]:
    """(function, line) of each call that reads a file outside of the guard."""
    found: list[tuple[str, int]] = []
    _walk(ast.parse(source), "", False, found)
    return found


def _walk(node: ast.AST, function: str, guarded: bool, found: list) -> None:
    if isinstance(node, ast.FunctionDef):
        function, guarded = node.name, False
    if isinstance(node, ast.Call) and not guarded and _reads(node):
        found.append((function, node.lineno))
    if isinstance(node, ast.With):
        for item in node.items:
            guarded = guarded or _name(item.context_expr).rpartition(".")[2] in GUARDS
            _walk(item, function, guarded, found)
        for inner in node.body:
            _walk(inner, function, guarded, found)
        return
    for inner in ast.iter_child_nodes(node):
        _walk(inner, function, guarded, found)


def _name(node: ast.AST) -> str:
    """The dotted name of what is called: `a.b.c` of a.b.c(...); `.c` if it has none before."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _reads(call: ast.Call) -> bool:
    name = _name(call)
    if name in OWN or _writes(call, name):
        return False
    return name in FUNCTIONS or ("." in name and name.rpartition(".")[2] in METHODS)


def _writes(call: ast.Call, name: str) -> bool:
    """Whether open() says that it writes, or os.open that it opens a folder or to lock."""
    mode = call.args[1] if len(call.args) > 1 else None
    mode = next((keyword.value for keyword in call.keywords if keyword.arg == "mode"), mode)
    if name in ("open", "os.fdopen") and isinstance(mode, ast.Constant):
        return bool(set("wax") & set(str(mode.value)))
    return name == "os.open"


def unguarded(path: Path) -> dict[str, list[int]]:
    name, found = path.relative_to(ROOT).as_posix(), {}
    for function, line in readers(path.read_text(encoding="utf-8")):
        found.setdefault(f"{name}:{function}", []).append(line)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_readers_are_under_the_guard(path):
    assert {
        place: lines for place, lines in unguarded(path).items() if place not in EXCEPTIONS
    } == {}


def test_no_exception_is_left_over():
    found = set().union(*(unguarded(path) for path in SOURCES))
    assert set(EXCEPTIONS) - found == set()


def test_the_walk_finds_what_it_looks_for():
    for line in ("open(p)", 'open(p, "rb")', "np.load(p)", "h5py.File(p)", "cv2.imread(p, 1)",
                 "p.read_text()", "Path(p).read_bytes()", "json.loads(t)", "Image.open(p)",
                 "with open(p) as f: pass", "with x(): m.FromString(d)"):  # fmt: skip
        assert readers(line) == [("", 1)], line
    for line in ('open(p, "w")', "read_text(p, E)", "files.read_text(p, m)",
                 "with reading(p, w, E): np.load(p)", "with reading(p, w, E), open(p): pass",
                 "with self.guard(): m.FromString(d)"):  # fmt: skip
        assert readers(line) == [], line
    text = "with reading(p, w, E):\n  pass\ndef f():\n  return open(p)"
    assert readers(text) == [("f", 4)]
