// The forward pass of a transformer of Tidal for generation on CPUs with AVX2: the same function as `DecodingModel`.
//
// A pass takes rows: one token each, with a slot of the cache and a position in it. Decoding has one row per sequence,
// prefill one per token of the prompts. A row depends on its sequence only, and all its sums have a fixed order, so a
// text is the same to the last bit alone and in a batch. `library.py` declares the same structures for ctypes.
#include <atomic>
#include <cstring>
#include <memory>
#include <vector>

#include "attention.h"
#include "linear.h"
#include "team.h"
#include "vectors.h"

using namespace tidal;

namespace {

constexpr int CHUNK = 192;  // rows that pass through all layers together, so that their states stay in the CPU's cache
enum Activation : std::int32_t { GELU = 0, RELU_SQUARED = 1 };

}  // namespace

extern "C" {

struct Norm {
    const float *weight, *bias;  // null for the root mean square without weights
    float eps;
};

struct Layer {
    Norm norm1, norm2;
    Linear qkv, out, up, down;  // the two numbers of a rotary pair of queries and keys are neighbours
};

struct Model {
    std::int32_t layers, width, heads, activation, qk_norm, embedding_norm, capacity;
    float rms_eps, softcap;   // softcap 0: no limit of the logits
    const float* embedding;   // (vocabulary, width)
    const float* rotations;   // (capacity, head width): cosine and sine of each pair
    Norm final_norm;
    Linear head;
    const Layer* layer;
};

// The gates of all branches: sigmoid(last · gelu(first m + first bias) + last bias).
struct Gates {
    std::int32_t count, inner, width;  // `count` is 2 layers
    const float *first, *first_bias;   // (count, inner)
    const float *last, *last_bias;     // (count, inner, width), (count, width)
};

// A pass over `count` rows. Keys and values are those of slot 0 of layer 0.
struct Pass {
    std::int32_t count, slots;  // `slots` is the number of slots that the cache has room for
    const std::int64_t* tokens;
    const std::int32_t *slot, *position;
    float *keys, *values;  // (layers, slots, heads, capacity, head width)
    const float* scales;   // factors of the gates (2 layers, count, width), or null
    float* states;         // (count, width): the states after the last block
    float *logits, *hidden;  // (count, vocabulary), (count, width) after the final norm; both null: not computed
};
}

namespace {

// Numbers that the phases of a pass hand to each other.
struct Buffers {
    std::vector<float> normed, qkv, attended, inner, scale;
    std::vector<std::int16_t> steps;

    Buffers(const Model& model, int rows) {
        std::size_t n = rows, inner_width = model.layer[0].up.out;
        std::size_t widest = std::max<std::size_t>(inner_width, model.width) + 1;
        normed.resize(n * model.width);
        qkv.resize(n * 3 * model.width);
        attended.resize(n * model.width);
        inner.resize(n * inner_width);
        scale.resize(n);
        steps.resize(n * widest);
    }
};

// One thread's view of the pass over a chunk of rows; all threads call the same methods in the same order.
class Worker {
  public:
    Worker(const Model& model, const Pass& pass, int first, int count, Buffers& buffers, Team& team,
           std::vector<std::atomic<int>>& taken, int threads)
        : model_(model), pass_(pass), first_(first), count_(count), buffers_(buffers), team_(team), taken_(taken),
          threads_(threads), head_width_(model.width / model.heads), weights_(model.capacity) {}

    void run() {
        embed();
        for (int index = 0; index < model_.layers; ++index) block(index);
        if (pass_.logits) logits();
    }

    // Compute the logits of given states.
    void logits() {
        share(count_, [&](int row) {
            float* to = pass_.hidden + static_cast<std::size_t>(first_ + row) * model_.width;
            normalise(model_.final_norm, state(row), to);
        });
        const __m256 cap = _mm256_set1_ps(model_.softcap);
        const std::size_t vocabulary = model_.head.out;
        multiply(model_.head, pass_.hidden + static_cast<std::size_t>(first_) * model_.width,
                 [&](int row, int at, __m256 y, int count) {
                     if (model_.softcap != 0.0f) y = _mm256_mul_ps(cap, tanh(_mm256_div_ps(y, cap)));
                     store(pass_.logits + (first_ + row) * vocabulary + at, y, count);
                 });
    }

  private:
    float* state(int row) const { return pass_.states + static_cast<std::size_t>(first_ + row) * model_.width; }

    // Call body(i) for 0 ≤ i < total, each on one of the threads, and wait for all.
    template <class Body>
    void share(int total, Body body) {
        std::atomic<int>& next = taken_[phase_++];
        int step = std::max(1, total / (threads_ * 8));
        for (int begin; (begin = next.fetch_add(step, std::memory_order_relaxed)) < total;)
            for (int i = begin; i < std::min(begin + step, total); ++i) body(i);
        team_.barrier();
    }

    template <class Write>
    void multiply(const Linear& layer, const float* values, Write write) {
        if (layer.weight8) {
            int padded = padded_width(layer.in);
            share(count_, [&](int row) {
                const float* from = values + static_cast<std::size_t>(row) * layer.in;
                std::int16_t* steps = buffers_.steps.data() + static_cast<std::size_t>(row) * padded;
                buffers_.scale[row] = quantise(from, layer.in, steps);
            });
        }
        Rows rows{values, buffers_.steps.data(), buffers_.scale.data(), count_};
        share((panels(layer) + GROUP - 1) / GROUP, [&](int group) { multiply_group(layer, rows, group, write); });
    }

    void normalise(const Norm& norm, const float* from, float* to) {
        if (norm.weight)
            layer_norm(from, to, model_.width, norm.weight, norm.bias, norm.eps);
        else
            rms_norm(from, to, model_.width, norm.eps);
    }

    void embed() {
        share(count_, [&](int row) {
            const float* from = model_.embedding + pass_.tokens[first_ + row] * model_.width;
            if (model_.embedding_norm)
                rms_norm(from, state(row), model_.width, model_.rms_eps);
            else
                std::memcpy(state(row), from, model_.width * sizeof(float));
        });
    }

    void normalise_states(const Norm& norm) {
        share(count_, [&](int row) {
            normalise(norm, state(row), buffers_.normed.data() + static_cast<std::size_t>(row) * model_.width);
        });
    }

    // Return a function that adds the result of a branch to the states, times the factors of its gate.
    auto add_to_states(int gate) {
        const float* scales =
            pass_.scales ? pass_.scales + (static_cast<std::size_t>(gate) * pass_.count + first_) * model_.width : nullptr;
        return [this, scales](int row, int at, __m256 y, int count) {
            float* to = state(row) + at;
            const float* factor = scales ? scales + static_cast<std::size_t>(row) * model_.width + at : nullptr;
            if (count == 8) {
                __m256 x = _mm256_loadu_ps(to);
                x = factor ? _mm256_fmadd_ps(y, _mm256_loadu_ps(factor), x) : _mm256_add_ps(x, y);
                _mm256_storeu_ps(to, x);
                return;
            }
            alignas(32) float numbers[8];
            _mm256_store_ps(numbers, y);
            for (int i = 0; i < count; ++i) to[i] += factor ? numbers[i] * factor[i] : numbers[i];
        };
    }

    void block(int index) {
        const Layer& layer = model_.layer[index];
        const int width = model_.width, inner_width = layer.up.out;
        normalise_states(layer.norm1);
        multiply(layer.qkv, buffers_.normed.data(), [&](int row, int at, __m256 y, int count) {
            store(buffers_.qkv.data() + static_cast<std::size_t>(row) * 3 * width + at, y, count);
        });
        share(count_ * model_.heads, [&](int i) { rotate_and_keep(index, i / model_.heads, i % model_.heads); });
        share(count_ * model_.heads, [&](int i) {
            int row = i / model_.heads, head = i % model_.heads;
            std::size_t at = cache_line(index, row, head);
            attend(query(row, head), pass_.keys + at, pass_.values + at, pass_.position[first_ + row] + 1, head_width_,
                   weights_.data(),
                   buffers_.attended.data() + static_cast<std::size_t>(row) * width + head * head_width_);
        });
        multiply(layer.out, buffers_.attended.data(), add_to_states(2 * index));
        normalise_states(layer.norm2);
        multiply(layer.up, buffers_.normed.data(), [&](int row, int at, __m256 y, int count) {
            y = model_.activation == GELU ? gelu(y) : relu_squared(y);
            store(buffers_.inner.data() + static_cast<std::size_t>(row) * inner_width + at, y, count);
        });
        multiply(layer.down, buffers_.inner.data(), add_to_states(2 * index + 1));
    }

    float* query(int row, int head) {
        return buffers_.qkv.data() + static_cast<std::size_t>(row) * 3 * model_.width + head * head_width_;
    }

    // Return the index of position 0 of a row's slot and head in a layer of the cache.
    std::size_t cache_line(int layer, int row, int head) const {
        std::size_t slot = static_cast<std::size_t>(layer) * pass_.slots + pass_.slot[first_ + row];
        return (slot * model_.heads + head) * model_.capacity * head_width_;
    }

    void rotate_and_keep(int layer, int row, int head) {
        int position = pass_.position[first_ + row];
        float* q = query(row, head);
        float* k = q + model_.width;
        const float* rotation = model_.rotations + static_cast<std::size_t>(position) * head_width_;
        for (float* pairs : {q, k}) {
            if (model_.qk_norm) rms_norm(pairs, pairs, head_width_, model_.rms_eps);
            for (int i = 0; i < head_width_; i += 2) {
                float a = pairs[i], b = pairs[i + 1], cosine = rotation[i], sine = rotation[i + 1];
                pairs[i] = a * cosine - b * sine;
                pairs[i + 1] = a * sine + b * cosine;
            }
        }
        std::size_t at = cache_line(layer, row, head) + static_cast<std::size_t>(position) * head_width_;
        std::memcpy(pass_.keys + at, k, head_width_ * sizeof(float));
        std::memcpy(pass_.values + at, k + model_.width, head_width_ * sizeof(float));
    }

    const Model& model_;
    const Pass& pass_;
    const int first_, count_;
    Buffers& buffers_;
    Team& team_;
    std::vector<std::atomic<int>>& taken_;
    const int threads_, head_width_;
    std::vector<float> weights_;
    int phase_ = 0;
};

constexpr int PHASES_PER_LAYER = 12, OTHER_PHASES = 4;

template <class Work>
void in_chunks(const Model& model, const Pass& pass, int threads, Work work) {
    Buffers buffers(model, std::min(CHUNK, pass.count));
    Team& team = Team::of_process();
    for (int first = 0; first < pass.count; first += CHUNK) {
        int count = std::min(CHUNK, pass.count - first);
        std::vector<std::atomic<int>> taken(model.layers * PHASES_PER_LAYER + OTHER_PHASES);
        team.run(threads, [&](int) {
            Worker worker(model, pass, first, count, buffers, team, taken, threads);
            work(worker);
        });
    }
}

}  // namespace

extern "C" {

// Write the packed weights of a layer (out, in) to `to`, which has room for whole panels and is 0.
void tidal_pack(const float* weight, std::int32_t out, std::int32_t in, float* to) {
    for (std::size_t o = 0; o < static_cast<std::size_t>(out); ++o)
        for (int k = 0; k < in; ++k) to[(o / PANEL * in + k) * PANEL + o % PANEL] = weight[o * in + k];
}

void tidal_pack8(const std::int8_t* weight, std::int32_t out, std::int32_t in, std::int8_t* to) {
    std::size_t padded = padded_width(in);
    for (std::size_t o = 0; o < static_cast<std::size_t>(out); ++o)
        for (std::size_t k = 0; k < static_cast<std::size_t>(in); ++k)
            to[(o / PANEL * padded + k / 2 * 2) * PANEL + o % PANEL * 2 + k % 2] = weight[o * in + k];
}

// Write the factors (gates, rows, width) of the gates for the modulation of each row; 1 where `gated` is 0.
void tidal_gates(const Gates* gates, const float* modulation, const std::uint8_t* gated, std::int32_t rows, float* to,
                 std::int32_t threads) {
    std::atomic<int> next{0};
    const int inner = gates->inner, width = gates->width, total = gates->count * rows;
    Team::of_process().run(std::min(threads, rows), [&](int) {
        std::vector<float> activated(inner + 8);
        for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < total;) {
            const std::size_t gate = i / rows;
            float* factors = to + static_cast<std::size_t>(i) * width;
            if (!gated[i % rows]) {
                std::fill(factors, factors + width, 1.0f);
                continue;
            }
            for (int k = 0; k < inner; ++k)
                activated[k] = gates->first[gate * inner + k] * modulation[i % rows] + gates->first_bias[gate * inner + k];
            by_eight(activated.data(), inner, [&](__m256 v, int at, int n) { store(&activated[at], gelu(v), n); });
            by_eight(gates->last_bias + gate * width, width, [&](__m256 sum, int at, int n) {
                for (int k = 0; k < inner; ++k) {
                    const float* row = gates->last + (gate * inner + k) * width + at;
                    __m256 weight = n == 8 ? _mm256_loadu_ps(row) : first_of(row, n);
                    sum = _mm256_fmadd_ps(_mm256_set1_ps(activated[k]), weight, sum);
                }
                store(factors + at, sigmoid(sum), n);
            });
        }
    });
}

// Run a pass on `threads` threads. Rows of one sequence are in the order of their positions.
void tidal_forward(const Model* model, const Pass* pass, std::int32_t threads) {
    in_chunks(*model, *pass, threads, [](Worker& worker) { worker.run(); });
}

// Compute logits and final states from the states that `pass` has.
void tidal_project(const Model* model, const Pass* pass, std::int32_t threads) {
    in_chunks(*model, *pass, threads, [](Worker& worker) { worker.logits(); });
}
}
