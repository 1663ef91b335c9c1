"""The emulator finds what it is for: each kernel here has one of the classic mistakes, and one has none."""

import numpy as np
import pytest
import torch
from emulator import KernelError

SOUND = """#include "common.cuh"
template <typename T>
__global__ void turn(const T* in, T* out, int size) {
  SHARED(bytes);
  T* cell = reinterpret_cast<T*>(bytes);
  const int i = threadIdx.x;
  cell[i] = in[i];
  __syncthreads();
  out[i] = cell[size - 1 - i];
}
"""
MISTAKES = {
    "a race": ("  __syncthreads();\n", ""),
    "that some threads never reach": ("__syncthreads();", "if (i < 32) __syncthreads();"),
    "at different __syncthreads": ("__syncthreads();", "if (i < 32) __syncthreads(); else __syncthreads();"),
    "wait for others that are not there": ("__syncthreads();", "if (i != 3) __syncwarp(); __syncthreads();"),
    "different collectives": ("__syncthreads();", "if (i < 3) __syncwarp(); else __syncwarp();"),
    "outside of a buffer": ("out[i] =", "out[i + (i == size - 1)] ="),
    "behind the end of shared memory": ("cell[i] = in[i];", "cell[i] = in[i]; cell[size] = in[i];"),
    "misaligned vector": ("cell[i] = in[i];", "cell[i] = load_vector<2>(in + i / 2).value[0];"),
    "a collective of a part of a warp": ("__syncthreads();", "__shfl_sync(1u, i, 0); __syncthreads();"),
}


def turned(emulator, text, size=64, dtype=torch.float32, shared=4):
    emulator.sources = {"turn.cu": text.replace('#include "common.cuh"', HEADER)}
    x, out = torch.arange(size).to(dtype), torch.empty(size, dtype=dtype)
    emulator.launch("turn.cu", "turn<float>", (1,), (size,), x, out, np.int32(size), shared=shared * size)
    return out


@pytest.fixture(autouse=True)
def header(emulated, monkeypatch):
    from sancli.ops.cuda import loader

    global HEADER
    HEADER = loader.text("common.cuh")
    monkeypatch.setattr(emulated, "sources", {})


def test_a_sound_kernel_runs(emulated):
    assert turned(emulated, SOUND).tolist() == list(range(63, -1, -1))


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_found(emulated, message):
    with pytest.raises(KernelError, match=message):
        turned(emulated, SOUND.replace(*MISTAKES[message]))


def test_shared_memory_starts_as_nan_and_is_not_larger_than_asked_for(emulated):
    assert turned(emulated, SOUND.replace("cell[i] = in[i];", "if (i) cell[i] = in[i];"))[-1].isnan()
    with pytest.raises(KernelError, match="behind the end"):
        turned(emulated, SOUND, shared=3)


def test_arguments_of_another_type_are_refused(emulated):
    with pytest.raises(KernelError, match="type F and is given D"):
        turned(emulated, SOUND, dtype=torch.float64)
