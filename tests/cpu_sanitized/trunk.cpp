// The trunk and the stem at awkward sizes.
#include "driver.h"

extern "C" {
int64_t san_norm_relu(char*, int64_t threads, int64_t storage, int64_t pixels, int64_t channels, int64_t batch,
                      const void* x, const Real* gamma, const Real* beta, Real* mean, Real* var, double eps, void* y);
int64_t san_norm_relu_backward(char*, int64_t threads, int64_t storage, int64_t pixels, int64_t channels,
                               int64_t batch, const void* grad, const void* x, const Real* gamma, const Real* beta,
                               Real* mean, Real* var, double eps, void* grad_x, Real* grad_gamma, Real* grad_beta);
int64_t san_norm_relu_pool(char*, int64_t threads, int64_t storage, int64_t images, int64_t height, int64_t width,
                           int64_t channels, int64_t batch, const void* x, const Real* gamma, const Real* beta,
                           Real* mean, Real* var, double eps, void* y);
int64_t san_norm_relu_pool_backward(char*, int64_t threads, int64_t storage, int64_t images, int64_t height,
                                    int64_t width, int64_t channels, int64_t batch, const void* grad, const void* x,
                                    const Real* gamma, const Real* beta, Real* mean, Real* var, double eps,
                                    void* grad_x, Real* grad_gamma, Real* grad_beta);
int64_t san_stem(char*, int64_t threads, int64_t storage, int64_t images, int64_t height, int64_t width,
                 int64_t channels, int64_t batch, const void* image, const Real* weight, const Real* gamma,
                 const Real* beta, Real* mean, Real* var, double eps, void* y);
int64_t san_stem_backward(char*, int64_t threads, int64_t storage, int64_t images, int64_t height, int64_t width,
                          int64_t channels, int64_t batch, const void* grad, const void* image, const Real* weight,
                          const Real* gamma, const Real* beta, Real* mean, Real* var, double eps, void* grad_image,
                          Real* grad_weight, Real* grad_gamma, Real* grad_beta);
}

namespace {

struct Shape {
    int64_t images, height, width, channels;
    int64_t pixels() const { return images * height * width; }
    int64_t windows() const { return images * (height / 2) * (width / 2); }
};

struct Parameters {
    Numbers<Real> gamma, beta, mean, var, grad_gamma, grad_beta;

    explicit Parameters(int64_t channels)
        : gamma(channels), beta(channels), mean(channels), var(channels), grad_gamma(channels), grad_beta(channels) {
        var.positive();
    }
    void check(const char* name) {
        for (auto* numbers : {&mean, &var, &grad_gamma, &grad_beta}) numbers->check(name);
    }
};

template <class Stored> void norm_relu(const Shape& s, int64_t storage, int64_t batch) {
    Numbers<Stored> x(s.pixels() * s.channels), y(s.pixels() * s.channels), grad(s.pixels() * s.channels);
    Parameters p(s.channels);
    call(san_norm_relu, storage, s.pixels(), s.channels, batch, x, p.gamma, p.beta, p.mean, p.var, 1e-5, y.forgotten());
    call(san_norm_relu_backward, storage, s.pixels(), s.channels, batch, grad, x, p.gamma, p.beta, p.mean, p.var, 1e-5,
         grad, p.grad_gamma.forgotten(), p.grad_beta.forgotten());
    y.check("san_norm_relu"), grad.check("san_norm_relu_backward"), p.check("san_norm_relu");
}

template <class Stored> void pool(const Shape& s, int64_t storage, int64_t batch) {
    Numbers<Stored> x(s.pixels() * s.channels), y(s.windows() * s.channels), grad_x(s.pixels() * s.channels);
    Parameters p(s.channels);
    call(san_norm_relu_pool, storage, s.images, s.height, s.width, s.channels, batch, x, p.gamma, p.beta, p.mean, p.var,
         1e-5, y.forgotten());
    call(san_norm_relu_pool_backward, storage, s.images, s.height, s.width, s.channels, batch, y, x, p.gamma, p.beta,
         p.mean, p.var, 1e-5, grad_x.forgotten(), p.grad_gamma.forgotten(), p.grad_beta.forgotten());
    y.check("san_norm_relu_pool"), grad_x.check("san_norm_relu_pool_backward"), p.check("san_norm_relu_pool");
}

template <class Stored> void stem(const Shape& s, int64_t storage, int64_t batch) {
    Numbers<Stored> image(s.pixels() * 3), y(s.windows() * s.channels), grad_image(s.pixels() * 3);
    Numbers<Real> weight(s.channels * 3), grad_weight(s.channels * 3);
    Parameters p(s.channels);
    call(san_stem, storage, s.images, s.height, s.width, s.channels, batch, image, weight, p.gamma, p.beta, p.mean,
         p.var, 1e-5, y.forgotten());
    for (void* wanted : {static_cast<void*>(nullptr), static_cast<void*>(static_cast<Stored*>(grad_image.forgotten()))})
        call(san_stem_backward, storage, s.images, s.height, s.width, s.channels, batch, y, image, weight, p.gamma,
             p.beta, p.mean, p.var, 1e-5, wanted, grad_weight.forgotten(), p.grad_gamma.forgotten(),
             p.grad_beta.forgotten());
    y.check("san_stem"), grad_image.check("san_stem_backward"), grad_weight.check("san_stem_backward");
    p.check("san_stem");
}

template <class Stored> void run(int64_t storage) {
    Shape maps[] = {{2, 2, 2, 0}, {1, 3, 5, 0}, {1, 2, 3, 0}, {3, 7, 2, 0}, {2, 9, 16, 0}, {1, 1, 1, 0}, {2, 1, 7, 0}};
    for (Shape shape : maps)
        for (int64_t channels : {1, 3, 5, 16, 17, 64, 515})
            for (int64_t batch : {0, 1}) {
                shape.channels = channels;
                norm_relu<Stored>(shape, storage, batch);
                if (shape.height == 1) continue;  // no window
                pool<Stored>(shape, storage, batch);
                stem<Stored>(shape, storage, batch);
            }
}

}  // namespace

int main() {
    run<Real>(0);
    if constexpr (sizeof(Real) == sizeof(float)) run<san::BFloat16>(san::BFLOAT16);
}
