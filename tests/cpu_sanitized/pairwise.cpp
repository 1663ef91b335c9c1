// Pairwise attention and the aggregation at awkward sizes.
#include "driver.h"

#define PARAMETERS                                                                                                \
    const Real *gamma1, const Real *beta1, Real *mean1, Real *var1, double eps1, int64_t batch1,                  \
        const Real *weight1, const Real *gamma2, const Real *beta2, Real *mean2, Real *var2, double eps2,         \
        int64_t batch2, const Real *weight2, const Real *bias2
#define SIZES                                                                                                     \
    char*, int64_t threads, int64_t storage, int64_t images, int64_t height, int64_t width, int64_t kernel

extern "C" {
int64_t san_pairwise_attention(SIZES, int64_t planes, int64_t weights, int64_t values, const void* query,
                               int64_t query_stride, const void* key, int64_t key_stride, const void* value,
                               int64_t value_stride, const Real* place, int64_t sign, PARAMETERS, void* out,
                               Real* logsumexp);
int64_t san_pairwise_attention_backward(SIZES, int64_t planes, int64_t weights, int64_t values, const void* grad,
                                        int64_t grad_stride, const void* query, int64_t query_stride,
                                        const void* key, int64_t key_stride, const void* value,
                                        int64_t value_stride, const Real* place, int64_t sign, PARAMETERS,
                                        const Real* logsumexp, void* grad_query, void* grad_key, void* grad_value,
                                        Real* grad_place, Real* grad_gamma1, Real* grad_beta1, Real* grad_weight1,
                                        Real* grad_gamma2, Real* grad_beta2, Real* grad_weight2);
int64_t san_aggregation(SIZES, int64_t weights, int64_t values, const void* value, int64_t value_stride,
                        const void* weight, int64_t weight_stride, void* out, int64_t out_stride);
int64_t san_aggregation_backward(SIZES, int64_t weights, int64_t values, const void* grad, int64_t grad_stride,
                                 const void* value, int64_t value_stride, const void* weight, int64_t weight_stride,
                                 void* grad_value, int64_t grad_value_stride, void* grad_weight,
                                 int64_t grad_weight_stride);
}

namespace {

struct Shape {
    int64_t images, height, width, kernel, planes, weights, shares;
    int64_t pixels() const { return images * height * width; }
    int64_t values() const { return weights * shares; }
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

template <class Stored> void attend(const Shape& s, int64_t storage, int64_t sign, int64_t batch) {
    int64_t R = s.planes, G = s.weights, M = s.values(), D = R + 2, all = 2 * R + M;
    Numbers<Stored> merged(s.pixels() * all), out(s.pixels() * M);
    Numbers<Stored> grad_query(s.pixels() * R), grad_key(s.pixels() * R), grad_value(s.pixels() * M);
    Norm norm1(D), norm2(R);
    Numbers<Real> place(2 * s.height * s.width), grad_place(2 * s.height * s.width), logsumexp(s.pixels() * G);
    Numbers<Real> weight1(R * D), grad_weight1(R * D), weight2(G * R), grad_weight2(G * R), bias2(G);
    const Stored *query = merged, *key = query + R, *value = key + R;
    call(san_pairwise_attention, storage, s.images, s.height, s.width, s.kernel, R, G, M, query, all, key, all, value,
         all, place, sign, norm1.gamma, norm1.beta, norm1.mean, norm1.var, 1e-5, batch, weight1, norm2.gamma,
         norm2.beta, norm2.mean, norm2.var, 1e-5, batch, weight2, bias2, out.forgotten(), logsumexp.forgotten());
    norm1.forget(), norm2.forget();
    call(san_pairwise_attention_backward, storage, s.images, s.height, s.width, s.kernel, R, G, M, out, M, query, all,
         key, all, value, all, place, sign, norm1.gamma, norm1.beta, norm1.mean, norm1.var, 1e-5, batch, weight1,
         norm2.gamma, norm2.beta, norm2.mean, norm2.var, 1e-5, batch, weight2, bias2, logsumexp,
         grad_query.forgotten(), grad_key.forgotten(), grad_value.forgotten(), grad_place.forgotten(),
         norm1.grad_gamma, norm1.grad_beta, grad_weight1.forgotten(), norm2.grad_gamma, norm2.grad_beta,
         grad_weight2.forgotten());
    out.check("out"), grad_query.check("grad_query"), grad_key.check("grad_key"), grad_value.check("grad_value");
    logsumexp.check("logsumexp"), grad_place.check("grad_place"), grad_weight1.check("grad_weight1");
    grad_weight2.check("grad_weight2"), norm1.check(), norm2.check();
}

template <class Stored> void aggregate(const Shape& s, int64_t storage) {
    int64_t G = s.weights, M = s.values(), weights = s.kernel * s.kernel * G;
    Numbers<Stored> value(s.pixels() * M), weight(s.pixels() * weights), out(s.pixels() * M);
    Numbers<Stored> grad_value(s.pixels() * M), grad_weight(s.pixels() * weights);
    call(san_aggregation, storage, s.images, s.height, s.width, s.kernel, G, M, value, M, weight, weights,
         out.forgotten(), M);
    call(san_aggregation_backward, storage, s.images, s.height, s.width, s.kernel, G, M, out, M, value, M, weight,
         weights, grad_value.forgotten(), M, grad_weight.forgotten(), weights);
    out.check("out"), grad_value.check("grad_value"), grad_weight.check("grad_weight");
}

template <class Stored> void run(int64_t storage) {
    Shape shapes[] = {{1, 1, 1, 7, 4, 2, 8},  {2, 1, 2, 7, 4, 2, 8},  {3, 2, 3, 7, 3, 1, 1}, {17, 3, 3, 7, 1, 3, 5},
                      {9, 13, 4, 3, 5, 2, 8}, {2, 7, 7, 7, 8, 9, 8},  {1, 40, 9, 3, 2, 2, 9}, {33, 2, 5, 5, 2, 1, 8},
                      {4, 9, 2, 1, 3, 2, 3},  {1, 5, 150, 3, 2, 1, 8}};
    for (const Shape& shape : shapes) {
        for (int64_t batch : {0, 1}) attend<Stored>(shape, storage, 2 * batch - 1, batch);
        aggregate<Stored>(shape, storage);
    }
}

}  // namespace

int main() {
    run<Real>(0);
    if constexpr (sizeof(Real) == sizeof(float)) run<san::BFloat16>(san::BFLOAT16);
}
