"""Who may import whom. A new arrow in this table is a design decision: say why in the commit."""

import ast
from pathlib import Path

import sancli

ROOT = Path(sancli.__file__).parent
BASE = {"errors", "config", "console", "files"}
PARTS = {"data", "model", "engine", "weights", "report"}  # they never import each other
MAY_IMPORT = {
    "errors": set(),
    "config": {"errors"},
    "console": {"errors"},
    "files": {"errors"},
    "ops": {"errors", "files"},
    **dict.fromkeys(PARTS, BASE),
    "model": BASE | {"ops"},
    "runs": BASE | PARTS,
    "tasks": BASE | PARTS | {"runs", "ops"},  # ops: to say which implementation runs, and why
    "cli": BASE | {"tasks"},
}
ONLY_IN = {  # a heavy or fickle library has one door
    "cupy": ("ops/cuda/loader.py",),
    "imagehash": ("data/preparation/near.py",),
    "onnxruntime": ("tasks/exporting/onnx.py",),
    "onnxscript": ("tasks/exporting/translation.py",),
    "PIL": (
        "data/images.py",
        "data/modes.py",
        "data/scenes/",
        "data/transforms.py",
        "report/",
        "data/preparation/resizing.py",
    ),
    "pillow_heif": ("data/images.py",),
    "rich": ("console.py",),
    "gdown": ("weights/fetching/drive.py",),
    "requests": ("weights/fetching/",),
    "torchvision": ("data/transforms.py", "model/imagenet.py", "model/resnet.py"),
    "ctypes": ("engine/allocator.py", "ops/cpu/library.py"),
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from [f"{module}.{alias.name}" for alias in node.names] if module == "sancli" else [module]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def layer_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_imports_run_in_one_direction():
    for path in ROOT.rglob("*.py"):
        layer = layer_of(path)
        if layer.startswith("__"):
            continue
        for name in imports(path):
            if name.startswith("sancli."):
                target = name.split(".")[1]
                assert target in {layer, "__version__"} | MAY_IMPORT[layer], f"{path}: {layer} -> {target}"


def test_each_heavy_library_has_one_door():
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).as_posix()
        for name in imports(path):
            doors = ONLY_IN.get(name.split(".")[0])
            assert doors is None or place.startswith(doors), f"{place} imports {name}"
