"""Memory that is freed serves again without the system's help."""

import platform
import subprocess
import sys

import pytest

ROUNDS = """
import resource
from vae.training.speed.memory import keep_freed_memory

def faults_of_a_round():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [b"x" * 8_000_000 for _ in range(10)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if {kept}:
    keep_freed_memory()
for _ in range(3):
    faults_of_a_round()
print(faults_of_a_round())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators go their own ways")
def test_what_a_step_frees_serves_the_next_one() -> None:
    faults = {
        kept: int(subprocess.check_output([sys.executable, "-c", ROUNDS.format(kept=kept)])) for kept in (True, False)
    }
    assert faults[True] < 100 < faults[False], faults
