import pytest

from vae.settings.errors import LONGEST, explain

CPU = """[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)
Exception raised from alloc_cpu at ../c10/core/impl/alloc_cpu.cpp:124 (most recent call first):
frame #0: c10::Error::Error(c10::SourceLocation, std::string) + 0x96 (0x7f in libc10.so)"""
CUDA = "CUDA out of memory. Tried to allocate 3.64 TiB. GPU 0 has a total capacity of 79.11 GiB."
NUMPY = "Unable to allocate 745. GiB for an array with shape (100000, 1000000) and data type float64"


@pytest.mark.parametrize(("said", "size"), [(CPU, "3.638 TiB"), (CUDA, "3.64 TiB"), (NUMPY, "745 GiB")])
def test_too_little_memory_is_one_line_that_says_how_much_and_what_to_lower(said, size):
    line = explain(RuntimeError(said))
    assert line.startswith(f"out of memory: {size} were asked for at once; lower data.batch_size, latent_dim, ")
    assert line.isprintable()


def test_the_stack_of_cpp_is_left_out():
    error = RuntimeError(
        "sizes differ\nException raised from check at x.cpp:1 (most recent call first):\nframe #0: main"
    )
    assert explain(error) == "sizes differ"


def test_a_long_value_is_cut_between_its_key_and_what_is_allowed():
    line = explain(ValueError(f"report={3000 * 'x'}: must be one of best, last"))
    assert len(line) == LONGEST and line.startswith("report=xxx") and line.endswith("xxx: must be one of best, last")


def test_what_a_terminal_would_obey_is_shown():
    assert explain(ValueError("a=\x1b[31m\udcff\n b: must be c")) == "a=\\x1b[31m\\udcff b: must be c"
