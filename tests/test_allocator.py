import platform
import subprocess
import sys

import pytest

# Page faults of the second half of a loop that makes and frees 64 MiB again and again.
FAULTS = """
import resource
from sancli.engine.allocator import keep_freed_memory
if {keep}: assert keep_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for round in range(20):
    if round == 10: before = faults()
    bytearray(64 << 20)
print(faults() - before)
"""


def faults(*, keep):
    script = FAULTS.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_freed_memory_is_used_again_without_asking_the_system():
    assert faults(keep=True) < faults(keep=False) / 10
