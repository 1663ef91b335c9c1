"""The emulator finds what it is for: each kernel here has one of the classic mistakes, and one has none."""

import formulas
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


PRODUCTS = """#include "common.cuh"
// c = a b for a [16, DEPTH] and b [DEPTH, 8], by the layouts that common.cuh describes.
template <typename T>
__global__ void product_16(const T* a, const T* b, float* c) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4 * 2;
  SHARED(bytes);
  T* cells = reinterpret_cast<T*>(bytes);
  for (int i = lane; i < 16 * 16; i += 32) cells[i] = a[i];
  for (int i = lane; i < 16 * 8; i += 32) cells[16 * 16 + i / 8 * 16 + i % 8] = b[i];
  __syncthreads();
  unsigned rows[4], columns[4];
  ldmatrix_x4(rows, cells + (lane % 16) * 16 + lane / 16 * 8);
  ldmatrix_x4_trans(columns, cells + 16 * 16 + (lane % 16) * 16);
  float d[4] = {};
  mma_m16n8k16(d, rows, columns, T());
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + t + i % 2] = d[i];
}
__global__ void product_8(const __half* a, const __half* b, float* c) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4 * 2;
  const __half2 low = {a[g * 8 + t], a[g * 8 + t + 1]}, high = {a[(g + 8) * 8 + t], a[(g + 8) * 8 + t + 1]};
  const __half2 column = {b[t * 8 + g], b[(t + 1) * 8 + g]};
  const unsigned rows[2] = {*(const unsigned*)&low, *(const unsigned*)&high};
  float d[4] = {};
  mma_m16n8k8(d, rows, *(const unsigned*)&column, __half());
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + t + i % 2] = d[i];
}
template <typename T>
__global__ void convert(const T* in, float* wide, const float* from, T* out, int size) {
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    wide[i] = to_accumulator(in[i]);
    out[i] = from_accumulator<T>(from[i]);
  }
}
__global__ void places(int* out, int size, int reach, int most) {
  for (int i = 0; i < size; ++i) {
    int count = 0;
    for (int u = first_preimage(i, size, reach); u < size + reach; u = next_preimage(u, i, size))
      out[i * most + count++] = u;
    while (count < most) out[i * most + count++] = 9999;
  }
  for (int i = 0; i < size + 2 * reach; ++i) out[size * most + i] = reflect(i - reach, size);
}
"""
TYPES = {torch.float16: "__half", torch.bfloat16: "__nv_bfloat16"}


def run(emulator, kernel, block, *args, shared=0):
    emulator.sources = {"products.cu": PRODUCTS.replace('#include "common.cuh"', HEADER)}
    emulator.launch("products.cu", kernel, (1,), (block,), *args, shared=shared)


@pytest.mark.parametrize("dtype", TYPES)
def test_tensor_cores_multiply_matrices(emulated, dtype):
    a, b = torch.randn(16, 16).to(dtype), torch.randn(16, 8).to(dtype)
    c = torch.empty(16, 8)
    run(emulated, f"product_16<{TYPES[dtype]}>", 32, a, b, c, shared=2 * (16 * 16 + 16 * 16))
    torch.testing.assert_close(c, a.float() @ b.float())


def test_the_tensor_cores_of_a_t4_multiply_matrices(emulated):
    a, b, c = torch.randn(16, 8).half(), torch.randn(8, 8).half(), torch.empty(16, 8)
    run(emulated, "product_8", 32, a, b, c)
    torch.testing.assert_close(c, a.float() @ b.float())


@pytest.mark.parametrize("dtype", TYPES)
def test_16_bits_are_rounded_as_torch_rounds_them(emulated, dtype):
    """Every number of 16 bits; and between each two neighbours the middle, and what is a little beside it."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    exact = every.float()
    bits = exact.view(torch.int32)
    half_way = 2**12 if dtype == torch.float16 else 2**15
    for step in (0, half_way - 1, half_way, half_way + 1):
        near = (bits + step).view(torch.float32)
        wide, out = torch.empty(2**16), torch.empty(2**16, dtype=dtype)
        run(emulated, f"convert<{TYPES[dtype]}>", 64, every, wide, near, out, np.int32(2**16))
        torch.testing.assert_close(wide, exact, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(out, near.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("reach", [0, 1, 3, 5])
def test_places_that_show_a_pixel_are_those_that_reflection_maps_to_it(emulated, size, reach):
    shown = [formulas.reflect(i, size) for i in range(-reach, size + reach)]
    most = size + 2 * reach
    out = torch.empty(size * most + most, dtype=torch.int32)
    run(emulated, "places", 1, out, np.int32(size), np.int32(reach), np.int32(most))
    assert out[size * most :].tolist() == shown
    for i, places in enumerate(out[: size * most].view(size, most).tolist()):
        wanted = [j - reach for j in range(most) if shown[j] == i]
        assert places == wanted + [9999] * (most - len(wanted))
