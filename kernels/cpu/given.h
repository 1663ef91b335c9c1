// What both attentions are given besides their maps, and how maps come and go.
#pragma once

#include "norm.h"

namespace san {

// Two norms, and the 1x1 convolution behind each.
struct Parameters {
    Norm norm1;
    const Real* weight1;
    Norm norm2;
    const Real *weight2, *bias2;
};

template <class Stored> ChannelsLast<const Stored> read_maps(const void* data, int64_t stride) {
    return {static_cast<const Stored*>(data), stride};
}
template <class Stored> ChannelsLast<Stored> write_maps(void* data, int64_t stride) {
    return {static_cast<Stored*>(data), stride};
}

}  // namespace san

// As arguments of a function of the library: mean and var are read, or written where `batch` says so.
#define SAN_PARAMETERS                                                                                             \
    const Real *gamma1, const Real *beta1, Real *mean1, Real *var1, double eps1, int64_t batch1,                   \
        const Real *weight1, const Real *gamma2, const Real *beta2, Real *mean2, Real *var2, double eps2,          \
        int64_t batch2, const Real *weight2, const Real *bias2

// Those, as Parameters.
#define SAN_GIVEN                                                                                                  \
    Parameters{{gamma1, beta1, mean1, var1, eps1, batch1 != 0},                                                    \
               weight1,                                                                                            \
               {gamma2, beta2, mean2, var2, eps2, batch2 != 0},                                                    \
               weight2,                                                                                            \
               bias2}
