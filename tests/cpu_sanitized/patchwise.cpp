// Patchwise attention at awkward sizes.
#include "driver.h"

#define PARAMETERS                                                                                                \
    const Real *gamma1, const Real *beta1, Real *mean1, Real *var1, double eps1, int64_t batch1,                  \
        const Real *weight1, const Real *gamma2, const Real *beta2, Real *mean2, Real *var2, double eps2,         \
        int64_t batch2, const Real *weight2, const Real *bias2

extern "C" {
int64_t san_patchwise_attention(char*, int64_t threads, int64_t storage, int64_t images, int64_t height,
                                int64_t width, int64_t kernel, int64_t planes, int64_t weights, int64_t values,
                                const void* query, int64_t query_stride, const void* key, int64_t key_stride,
                                const void* value, int64_t value_stride, PARAMETERS, void* out, void* z);
int64_t san_patchwise_attention_backward(char*, int64_t threads, int64_t storage, int64_t images, int64_t height,
                                         int64_t width, int64_t kernel, int64_t planes, int64_t weights,
                                         int64_t values, const void* grad, const void* query, int64_t query_stride,
                                         const void* key, int64_t key_stride, const void* value,
                                         int64_t value_stride, PARAMETERS, const void* z, void* grad_query,
                                         void* grad_key, void* grad_value, Real* grad_gamma1, Real* grad_beta1,
                                         Real* grad_weight1, Real* grad_gamma2, Real* grad_beta2,
                                         Real* grad_weight2, Real* grad_bias2);
}

namespace {

struct Shape {
    int64_t images, height, width, kernel, planes, weights, shares;
};

// One BatchNorm, and room for the gradients of gamma and beta.
struct Norm {
    Numbers<Real> gamma, beta, mean, var, grad_gamma, grad_beta;
    explicit Norm(int64_t c) : gamma(c), beta(c), mean(c), var(c), grad_gamma(c), grad_beta(c) { var.positive(); }
    void forget() { grad_gamma.forgotten(), grad_beta.forgotten(); }
    void check() {
        for (auto* numbers : {&mean, &var, &grad_gamma, &grad_beta}) numbers->check("norm");
    }
};

template <class Stored> void attend(const Shape& s, int64_t storage, int64_t batch) {
    int64_t pixels = s.images * s.height * s.width, offsets = s.kernel * s.kernel;
    int64_t features = s.planes * (offsets + 1), values = s.weights * s.shares, all = 2 * s.planes + values;
    Numbers<Stored> merged(pixels * all), out(pixels * values), z(pixels * s.weights);
    Numbers<Stored> grad_query(pixels * s.planes), grad_key(pixels * s.planes), grad_value(pixels * values);
    Norm norm1(features), norm2(s.weights);
    Numbers<Real> weight1(s.weights * features), grad_weight1(s.weights * features), bias2(s.weights * offsets);
    Numbers<Real> weight2(s.weights * offsets * s.weights), grad_weight2(s.weights * offsets * s.weights);
    Numbers<Real> grad_bias2(s.weights * offsets);
    const Stored *query = merged, *key = query + s.planes, *value = key + s.planes;
    call(san_patchwise_attention, storage, s.images, s.height, s.width, s.kernel, s.planes, s.weights, values, query,
         all, key, all, value, all, norm1.gamma, norm1.beta, norm1.mean, norm1.var, 1e-5, batch, weight1, norm2.gamma,
         norm2.beta, norm2.mean, norm2.var, 1e-5, batch, weight2, bias2, out.forgotten(), z.forgotten());
    norm1.forget(), norm2.forget();
    call(san_patchwise_attention_backward, storage, s.images, s.height, s.width, s.kernel, s.planes, s.weights, values,
         out, query, all, key, all, value, all, norm1.gamma, norm1.beta, norm1.mean, norm1.var, 1e-5, batch, weight1,
         norm2.gamma, norm2.beta, norm2.mean, norm2.var, 1e-5, batch, weight2, bias2, z, grad_query.forgotten(),
         grad_key.forgotten(), grad_value.forgotten(), norm1.grad_gamma, norm1.grad_beta, grad_weight1.forgotten(),
         norm2.grad_gamma, norm2.grad_beta, grad_weight2.forgotten(), grad_bias2.forgotten());
    out.check("out"), z.check("z"), grad_query.check("grad_query"), grad_key.check("grad_key");
    grad_value.check("grad_value"), grad_weight1.check("grad_weight1"), grad_weight2.check("grad_weight2");
    grad_bias2.check("grad_bias2"), norm1.check(), norm2.check();
}

template <class Stored> void run(int64_t storage) {
    Shape shapes[] = {{1, 1, 1, 7, 4, 2, 8},  {2, 1, 2, 7, 4, 2, 8},  {3, 2, 3, 7, 3, 1, 1},  {17, 3, 3, 7, 1, 3, 5},
                      {9, 13, 4, 3, 5, 2, 8}, {2, 7, 7, 7, 8, 9, 8},  {1, 40, 19, 3, 2, 2, 9}, {33, 2, 5, 5, 2, 1, 8},
                      {4, 9, 2, 1, 3, 2, 3},  {1, 5, 150, 3, 2, 1, 8}};
    for (const Shape& shape : shapes)
        for (int64_t batch : {0, 1}) attend<Stored>(shape, storage, batch);
}

}  // namespace

int main() {
    run<Real>(0);
    if constexpr (sizeof(Real) == sizeof(float)) run<san::BFloat16>(san::BFLOAT16);
}
