// An LSTM layer's forward and backward pass on one core of a CPU, for windows gathered from rows of bars.
//
// The layer is Keras' (Gers et al. 2000, gates in the order input, forget, candidate, output), of which only the last
// hidden state is wanted. Sequences lie in the lanes of vectors: a tile of LANES x VECTORS sequences goes through all
// its steps before the next one starts, and each product of a weight with a vector stays in registers until its sum is
// complete. What the backward pass needs of a tile is kept step after step:
//
//   state   units + features + 1 rows: the hidden state before the step, the step's inputs, a one for the bias
//   gates   4 x units rows: after their activations
//   cell    units rows
//
// and behind the last step the last hidden state. A row is VECTORS vectors. Written with the vector types of GCC and
// Clang, so that one source serves AVX-512, AVX2 and NEON.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

// Blocks of sums: UNITS x 4 gates and HIDDEN rows, each times VECTORS, and STATE x GATES vectors of weights. The loops
// over them are unrolled, or the compiler keeps the sums in memory instead of registers.
#if defined(__AVX512F__)
constexpr int LANES = 16, UNITS = 3, HIDDEN = 13, STATE = 8, GATES = 3;
#else
constexpr int LANES = 8, UNITS = 1, HIDDEN = 4, STATE = 4, GATES = 2;
#endif
constexpr int VECTORS = 2;
constexpr int TILE = LANES * VECTORS;
constexpr int RUN = 4;  // steps whose weight gradients are summed together

typedef float Vec __attribute__((vector_size(LANES * sizeof(float)), may_alias));
typedef int32_t Int __attribute__((vector_size(LANES * sizeof(int32_t)), may_alias));

struct Layer {
    int steps, features, units;

    int state() const { return units + features + 1; }
    int gates() const { return 4 * units; }
    int padded_gates() const { return (gates() + LANES - 1) / LANES * LANES; }
    size_t state_size() const { return static_cast<size_t>(state()) * VECTORS; }
    size_t unit_size() const { return static_cast<size_t>(units) * VECTORS; }
    size_t step_size() const { return state_size() + 5 * unit_size(); }
    size_t tile_size() const { return step_size() * steps + state_size(); }
};

struct Free {
    void operator()(void* held) const { std::free(held); }
};

// Zeros, aligned for vectors.
template <typename T>
std::unique_ptr<T[], Free> zeros(size_t count) {
    const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
    void* held = std::aligned_alloc(64, bytes);
    if (!held) std::abort();
    std::memset(held, 0, bytes);
    return std::unique_ptr<T[], Free>(static_cast<T*>(held));
}

inline Vec splat(float x) { return x - Vec{}; }

// x within +-bound; not a number stays so.
inline Vec bounded(Vec x, float bound) {
    const Vec high = splat(bound), low = splat(-bound);
#if defined(__AVX512F__)
    return (Vec)_mm512_max_ps((__m512)low, _mm512_min_ps((__m512)high, (__m512)x));  // GCC compares and blends
#else
    x = x > high ? high : x;
    return x < low ? low : x;
#endif
}

// 2 to the power of x, |x| < 126, to 2e-7 of itself: the least greatest error of a polynomial of degree 5 around the
// nearest integer, which the addition of 1.5 x 2^23 leaves in the low bits.
inline Vec power_of_two(Vec x) {
    const Vec magic = splat(12582912.f);
    const Vec shifted = x + magic;
    const Vec rest = x - (shifted - magic);
    Vec p = splat(1.326472727e-3f);
    p = p * rest + 9.671512769e-3f;
    p = p * rest + 5.550733744e-2f;
    p = p * rest + 2.402224208e-1f;
    p = p * rest + 6.931469776e-1f;
    p = p * rest + 1.0f;
    return (Vec)((Int)p + ((Int)shifted << 23));
}

constexpr float LOG2_E = 1.44269504088896341f;
constexpr float FLAT = 20.f * LOG2_E;  // beyond it sigmoid and tanh are flat in single precision

inline Vec tanh_of(Vec x) { return 1.0f - 2.0f / (1.0f + power_of_two(bounded(x * (2.f * LOG2_E), FLAT))); }

// sigmoid(x) = 1 / (1 + 2^(-x log2 e)) and tanh(x) = 1 - 2 / (1 + 2^(2 x log2 e)); the weights hold the factors of x.
float gate_factor(int gate) { return gate == 2 ? 2.f * LOG2_E : -LOG2_E; }

// Activations of the four gates with one division.
inline void activate(Vec& input, Vec& forget, Vec& candidate, Vec& output) {
    const Vec a = 1.0f + power_of_two(bounded(input, FLAT)), b = 1.0f + power_of_two(bounded(forget, FLAT));
    const Vec c = 1.0f + power_of_two(bounded(candidate, FLAT)), d = 1.0f + power_of_two(bounded(output, FLAT));
    const Vec ab = a * b, cd = c * d, inverse = 1.0f / (ab * cd);
    const Vec of_ab = inverse * cd, of_cd = inverse * ab;
    input = of_ab * b;
    forget = of_ab * a;
    candidate = 1.0f - 2.0f * (of_cd * d);
    output = of_cd * c;
}

// Calls run(std::integral_constant<int, count>) for a count that is known only now, 1 <= count <= MOST.
template <int MOST, typename Run>
inline void with_constant(int count, const Run& run) {
    if constexpr (MOST > 1) {
        if (count < MOST) return with_constant<MOST - 1>(count, run);
    }
    run(std::integral_constant<int, MOST>());
}

// Calls run(first, count as a constant) for blocks of like size, at most MOST, that cover 0 to total - 1.
template <int MOST, typename Run>
inline void in_blocks(int total, const Run& run) {
    int first = 0;
    for (int left = (total + MOST - 1) / MOST; left; left--) {
        const int count = (total - first + left - 1) / left;
        with_constant<MOST>(count, [&](auto constant) { run(first, constant); });
        first += count;
    }
}

// The gates of COUNT units at one step, and their cells and hidden states. weights: rows of COUNT x 4: biases first.
template <int COUNT>
inline void step_units(const Layer& layer, bool first_step, const float* weights, const Vec* state,
                       const Vec* cell_before, Vec* gates, Vec* cell, Vec* hidden) {
    constexpr int SUMS = 4 * COUNT;
    Vec sums[SUMS][VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++)
#pragma GCC unroll 4
        for (int n = 0; n < VECTORS; n++) sums[i][n] = splat(weights[i]);
    if (first_step) {  // the hidden state before it is zero
        state += layer.unit_size();
        weights += static_cast<size_t>(SUMS) * layer.units;
    }
    for (int k = first_step ? layer.features : layer.units + layer.features; k; k--, state += VECTORS) {
        weights += SUMS;
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++)
            for (int n = 0; n < VECTORS; n++) sums[i][n] += weights[i] * state[n];
    }
    const size_t next = layer.unit_size();
#pragma GCC unroll 4
    for (int u = 0; u < COUNT; u++)
#pragma GCC unroll 4
        for (int n = 0; n < VECTORS; n++) {
            Vec input = sums[4 * u][n], forget = sums[4 * u + 1][n];
            Vec candidate = sums[4 * u + 2][n], output = sums[4 * u + 3][n];
            activate(input, forget, candidate, output);
            const int at = u * VECTORS + n;
            const Vec now = forget * cell_before[at] + input * candidate;
            cell[at] = now;
            hidden[at] = output * tanh_of(now);
            gates[at] = input;
            gates[at + next] = forget;
            gates[at + 2 * next] = candidate;
            gates[at + 3 * next] = output;
        }
}

// Weights as step_units reads them, block after block.
std::unique_ptr<float[], Free> packed_by_units(const Layer& layer, const float* kernel, const float* recurrent,
                                               const float* bias) {
    auto packed = zeros<float>(static_cast<size_t>(layer.state()) * layer.gates());
    float* out = packed.get();
    in_blocks<UNITS>(layer.units, [&](int first, auto count) {
        const auto add = [&](const float* row) {
            for (int u = first; u < first + count; u++)
                for (int gate = 0; gate < 4; gate++) *out++ = row[gate * layer.units + u] * gate_factor(gate);
        };
        add(bias);
        for (int k = 0; k < layer.units; k++) add(recurrent + static_cast<size_t>(k) * layer.gates());
        for (int k = 0; k < layer.features; k++) add(kernel + static_cast<size_t>(k) * layer.gates());
    });
    return packed;
}

// Recurrent weights as hidden_gradient reads them.
std::unique_ptr<float[], Free> packed_by_gates(const Layer& layer, const float* recurrent) {
    auto packed = zeros<float>(static_cast<size_t>(layer.units) * layer.gates());
    float* out = packed.get();
    in_blocks<HIDDEN>(layer.units, [&](int first, auto count) {
        for (int g = 0; g < layer.gates(); g++)
            for (int u = first; u < first + count; u++) *out++ = recurrent[static_cast<size_t>(u) * layer.gates() + g];
    });
    return packed;
}

// Inputs of the tile's windows into its states: means over `minutes` rows each. Lanes without a window repeat the last.
void gather(const Layer& layer, const float* rows, const int32_t* starts, int held, int minutes, Vec* tile) {
    const int features = layer.features;
    for (int t = 0; t < layer.steps; t++, tile += layer.step_size()) {
        float* inputs = reinterpret_cast<float*>(tile + layer.unit_size());
        for (int b = 0; b < TILE; b++) {
            const size_t start = static_cast<size_t>(starts[std::min(b, held - 1)]) + static_cast<size_t>(t) * minutes;
            const float* row = rows + start * features;
            for (int f = 0; f < features; f++) {
                float sum = row[f];
                for (int minute = 1; minute < minutes; minute++) sum += row[minute * features + f];
                inputs[f * TILE + b] = minutes > 1 ? sum / static_cast<float>(minutes) : sum;
            }
        }
        std::fill_n(inputs + features * TILE, TILE, 1.f);
    }
}

void forward_tile(const Layer& layer, const float* weights, const Vec* no_cell, Vec* tile) {
    std::memset(tile, 0, layer.unit_size() * sizeof(Vec));
    const Vec* cell_before = no_cell;
    for (int t = 0; t < layer.steps; t++, tile += layer.step_size()) {
        Vec* gates = tile + layer.state_size();
        Vec* cell = gates + 4 * layer.unit_size();
        Vec* hidden = tile + layer.step_size();
        const float* block = weights;
        in_blocks<UNITS>(layer.units, [&](int first, auto count) {
            const size_t at = static_cast<size_t>(first) * VECTORS;
            step_units<count>(layer, t == 0, block, tile, cell_before + at, gates + at, cell + at, hidden + at);
            block += static_cast<size_t>(layer.state()) * 4 * count;
        });
        cell_before = cell;
    }
}

// Gradients of the gates before their activations, and of the cell before the step, from those after it.
inline void gate_gradients(const Layer& layer, const Vec* gates, const Vec* hidden, const Vec* cell_before,
                           const Vec* by_hidden, Vec* by_cell, Vec* by_gates) {
    const size_t next = layer.unit_size();
    for (size_t at = 0; at < next; at++) {
        // What the step before needs next; in front of the first step that may be nobody's, which is no fault.
        const Vec* before = gates + at - layer.step_size();
        for (int i = 0; i < 4; i++) __builtin_prefetch(before + i * next);
        __builtin_prefetch(before - layer.step_size() + 4 * next);
        __builtin_prefetch(before - layer.state_size());
        const Vec input = gates[at], forget = gates[at + next];
        const Vec candidate = gates[at + 2 * next], output = gates[at + 3 * next];
        const Vec squashed = hidden[at] / output;  // tanh of the cell
        const Vec above = by_hidden[at];
        const Vec inner = by_cell[at] + above * output * (1.0f - squashed * squashed);
        by_gates[at] = inner * candidate * input * (1.0f - input);
        by_gates[at + next] = inner * cell_before[at] * forget * (1.0f - forget);
        by_gates[at + 2 * next] = inner * input * (1.0f - candidate * candidate);
        by_gates[at + 3 * next] = above * hidden[at] * (1.0f - output);
        by_cell[at] = inner * forget;
    }
}

// Gradients of COUNT hidden states before the step from those of its gates.
template <int COUNT>
inline void hidden_gradient(int gates, const float* weights, const Vec* by_gates, Vec* by_hidden) {
    Vec sums[COUNT][VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; i++)
#pragma GCC unroll 4
        for (int n = 0; n < VECTORS; n++) sums[i][n] = Vec{};
    for (int g = 0; g < gates; g++, weights += COUNT, by_gates += VECTORS) {
#pragma GCC unroll 16
        for (int i = 0; i < COUNT; i++)
            for (int n = 0; n < VECTORS; n++) sums[i][n] += weights[i] * by_gates[n];
    }
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; i++)
#pragma GCC unroll 4
        for (int n = 0; n < VECTORS; n++) by_hidden[i * VECTORS + n] = sums[i][n];
}

template <int WIDTH, int... INDEX>
inline void exchange(Vec& a, Vec& b, std::integer_sequence<int, INDEX...>) {
#if defined(__clang__) || __GNUC__ >= 12
    const Vec low = __builtin_shufflevector(a, b, (INDEX & WIDTH ? LANES + INDEX - WIDTH : INDEX)...);
    b = __builtin_shufflevector(a, b, (INDEX & WIDTH ? LANES + INDEX : INDEX + WIDTH)...);
#else
    const Vec low = __builtin_shuffle(a, b, Int{(INDEX & WIDTH ? LANES + INDEX - WIDTH : INDEX)...});
    b = __builtin_shuffle(a, b, Int{(INDEX & WIDTH ? LANES + INDEX : INDEX + WIDTH)...});
#endif
    a = low;
}

// Swap the off-diagonal squares of all squares of 2 x WIDTH.
template <int WIDTH>
inline void exchange_all(Vec (&square)[LANES]) {
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        if (!(i & WIDTH)) exchange<WIDTH>(square[i], square[i + WIDTH], std::make_integer_sequence<int, LANES>());
}

// Rows of gates with sequences in their lanes -> columns of LANES gates, each of RUN x TILE vectors: one for each step
// and sequence.
void transpose(const Layer& layer, const Vec* by_gates, Vec* by_sequences) {
    const int gates = layer.gates();
    for (int g = 0; g < gates; g += LANES, by_sequences += RUN * TILE)
        for (int n = 0; n < VECTORS; n++) {
            Vec square[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) square[i] = g + i < gates ? by_gates[(g + i) * VECTORS + n] : Vec{};
            exchange_all<1>(square);
            exchange_all<2>(square);
            exchange_all<4>(square);
            if constexpr (LANES > 8) exchange_all<8>(square);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) by_sequences[n * LANES + i] = square[i];
        }
}

// Add to ROWS x COLUMNS vectors of the weights' gradient what the tile's sequences make of it at `steps` steps.
template <int ROWS, int COLUMNS>
inline void weight_gradient(const Layer& layer, int steps, const Vec* state, const Vec* by_sequences, float* sum) {
    const int width = layer.padded_gates();
    Vec sums[ROWS][COLUMNS];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int n = 0; n < COLUMNS; n++) sums[i][n] = *reinterpret_cast<Vec*>(sum + i * width + n * LANES);
    for (int t = 0; t < steps; t++, state += layer.step_size()) {
        const float* values = reinterpret_cast<const float*>(state);
        for (int b = 0; b < TILE; b++, by_sequences++) {
            Vec gates[COLUMNS];
#pragma GCC unroll 4
            for (int n = 0; n < COLUMNS; n++) gates[n] = by_sequences[n * RUN * TILE];
#pragma GCC unroll 16
            for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
                for (int n = 0; n < COLUMNS; n++) sums[i][n] += values[i * TILE + b] * gates[n];
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int n = 0; n < COLUMNS; n++) *reinterpret_cast<Vec*>(sum + i * width + n * LANES) = sums[i][n];
}

void weight_gradients(const Layer& layer, int steps, const Vec* state, const Vec* by_sequences, float* sums) {
    const int width = layer.padded_gates(), columns = width / LANES;
    in_blocks<STATE>(layer.state(), [&](int first, auto count) {
        const Vec* rows = state + static_cast<size_t>(first) * VECTORS;
        float* into = sums + static_cast<size_t>(first) * width;
        in_blocks<GATES>(columns, [&](int column, auto taken) {
            const Vec* gates = by_sequences + column * RUN * TILE;
            weight_gradient<count, taken>(layer, steps, rows, gates, into + column * LANES);
        });
    });
}

}  // namespace

extern "C" {

// Bytes, aligned to 64, in which forward keeps what backward needs.
size_t stockflow_lstm_bytes(int count, int steps, int features, int units) {
    const Layer layer{steps, features, units};
    return layer.tile_size() * ((count + TILE - 1) / TILE) * sizeof(Vec);
}

// hidden (count, units) of the windows that start at rows `starts` (count,) of rows (n, features), each of
// steps x minutes rows. kernel: (features, 4 units), recurrent: (units, 4 units), bias: (4 units,).
void stockflow_lstm_forward(const float* rows, const int32_t* starts, int count, int steps, int minutes, int features,
                            int units, const float* kernel, const float* recurrent, const float* bias, void* kept,
                            float* hidden) {
    const Layer layer{steps, features, units};
    const auto weights = packed_by_units(layer, kernel, recurrent, bias);
    const auto no_cell = zeros<Vec>(layer.unit_size());
    Vec* tile = static_cast<Vec*>(kept);
    for (int first = 0; first < count; first += TILE, tile += layer.tile_size()) {
        const int held = std::min(TILE, count - first);
        gather(layer, rows, starts + first, held, minutes, tile);
        forward_tile(layer, weights.get(), no_cell.get(), tile);
        const float* last = reinterpret_cast<const float*>(tile + layer.steps * layer.step_size());
        for (int b = 0; b < held; b++)
            for (int u = 0; u < units; u++) hidden[static_cast<size_t>(first + b) * units + u] = last[u * TILE + b];
    }
}

// gradient (units + features + 1, 4 units): of recurrent, kernel and bias, from by_hidden (count, units).
void stockflow_lstm_backward(int count, int steps, int features, int units, const float* recurrent, const void* kept,
                             const float* by_hidden, float* gradient) {
    const Layer layer{steps, features, units};
    const int gates = layer.gates(), width = layer.padded_gates();
    const auto weights = packed_by_gates(layer, recurrent);
    const auto sums = zeros<float>(static_cast<size_t>(layer.state()) * width);
    const auto by_sequences = zeros<Vec>(static_cast<size_t>(RUN) * TILE * width / LANES);
    const auto by_gates = zeros<Vec>(4 * layer.unit_size());
    const auto above = zeros<Vec>(layer.unit_size()), by_cell = zeros<Vec>(layer.unit_size());
    const auto no_cell = zeros<Vec>(layer.unit_size());
    const Vec* tile = static_cast<const Vec*>(kept);
    for (int first = 0; first < count; first += TILE, tile += layer.tile_size()) {
        float* lanes = reinterpret_cast<float*>(above.get());
        for (int u = 0; u < units; u++)
            for (int b = 0; b < TILE; b++)  // lanes without a window have no gradient
                lanes[u * TILE + b] = first + b < count ? by_hidden[static_cast<size_t>(first + b) * units + u] : 0.f;
        std::memset(by_cell.get(), 0, layer.unit_size() * sizeof(Vec));
        for (int t = steps - 1; t >= 0; t--) {
            const Vec* state = tile + t * layer.step_size();
            const Vec* activated = state + layer.state_size();
            const Vec* cell_before = t ? state - layer.unit_size() : no_cell.get();
            gate_gradients(layer, activated, state + layer.step_size(), cell_before, above.get(), by_cell.get(),
                           by_gates.get());
            const float* block = weights.get();
            in_blocks<HIDDEN>(t ? units : 0, [&](int row, auto count_of_block) {
                hidden_gradient<count_of_block>(gates, block, by_gates.get(), above.get() + row * VECTORS);
                block += static_cast<size_t>(count_of_block) * gates;
            });
            transpose(layer, by_gates.get(), by_sequences.get() + (t % RUN) * TILE);
            if (t % RUN == 0)
                weight_gradients(layer, std::min(RUN, steps - t), state, by_sequences.get(), sums.get());
        }
    }
    for (int k = 0; k < layer.state(); k++)
        std::memcpy(gradient + static_cast<size_t>(k) * gates, sums.get() + static_cast<size_t>(k) * width,
                    static_cast<size_t>(gates) * sizeof(float));
}
}
