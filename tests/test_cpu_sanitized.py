"""The CPU kernels keep to their memory and to C++: compiled with the sanitizers, called at awkward sizes.

Each family has a program in tests/cpu_sanitized/, which stops with an error at the first wrong address: with
-m build for the best instructions. With -m slow it also stops at what is undefined in C++, on all of them.
"""

import itertools
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sancli.ops.cpu import build, library

PROGRAMS = Path(__file__).parent / "cpu_sanitized"
FAMILIES = {  # a program, and the kernels that it calls
    "patchwise": ("patchwise",),
    "pairwise": ("pairwise", "aggregation"),
    "trunk": ("trunk", "pool", "stem"),
}
QUICK = "best", "float", "address"
WHOLE = itertools.product(("best", *build.INSTRUCTION_SETS), ("float", "double"), ("address,undefined",))
CASES = [
    pytest.param(*QUICK, marks=pytest.mark.build),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in WHOLE),
]


def run(command):
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}  # libgomp keeps its threads until the end
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("instruction_set", "real", "sanitizers"), CASES)
def test_kernels_keep_to_their_memory(family, instruction_set, real, sanitizers, tmp_path):
    compiler, best = build.find_compiler(), library.instruction_set()
    if compiler is None or best is None:
        pytest.skip("no compiler, or no wish for one")
    names = list(build.INSTRUCTION_SETS)
    chosen = best if instruction_set == "best" else instruction_set
    if names.index(chosen) < names.index(best):
        pytest.skip(f"this processor has {best} at best")
    checked = "-O0", "-g1", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"
    flags = [*build.Recipe(compiler, chosen, real).flags(), *checked]
    sources = [PROGRAMS / f"{family}.cpp", *(build.sources() / f"{name}.cpp" for name in FAMILIES[family])]
    objects = [tmp_path / f"{i}.o" for i in range(len(sources))]
    start = [compiler.path, *compiler.options, *flags]
    with ThreadPoolExecutor() as pool:
        commands = [
            [*start, f"-I{build.sources()}", "-c", source, "-o", made]
            for source, made in zip(sources, objects, strict=True)
        ]
        list(pool.map(run, commands))
    run([*start, *objects, "-o", tmp_path / "program"])
    run([tmp_path / "program"])
