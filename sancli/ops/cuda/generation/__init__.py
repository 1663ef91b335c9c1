"""Weight generation of patchwise attention: z = weight relu(norm1(relation)), by kernels/generate*.cu."""
