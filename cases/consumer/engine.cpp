// my-engine GGUF TOKENS DUMP [no-mask]: a Qwen3 in a hundred lines of C++, the way an engine author
// would write one, dumping through refparity/dump.h. "no-mask" lets attention see the future.
#include <refparity/gguf.h>
#define REFPARITY_DUMP_IMPLEMENTATION
#include <refparity/dump.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

using Vec = std::vector<float>;

static rp_gguf *file;
static rp_error err;

static void check(rp_status status)
{
    if (status == RP_OK)
        return;
    std::fprintf(stderr, "my-engine: %s\n", err.message);
    std::exit(2);
}

static Vec load(const std::string &name) // [rows][columns]
{
    const struct rp_gguf_tensor *t = rp_gguf_find_tensor(file, (name + ".weight").c_str());
    Vec w(t ? t->n_rows * t->dims[0] : 0);
    if (t)
        check(rp_gguf_rows(file, t, 0, t->n_rows, w.data(), &err));
    return w;
}

static int64_t number(const char *key)
{
    int64_t n = 0;
    check(rp_gguf_get_int(file, key, 1, 1 << 20, &n, &err));
    return n;
}

static double real(const char *key)
{
    double x = 0;
    check(rp_gguf_get_float(file, key, &x, &err));
    return x;
}

static void rms_norm(float *x, const Vec &w, double eps)
{
    double ms = 0;
    for (size_t i = 0; i < w.size(); i++)
        ms += double(x[i]) * x[i] / double(w.size());
    for (size_t i = 0; i < w.size(); i++)
        x[i] = float(x[i] / std::sqrt(ms + eps) * w[i]);
}

static Vec times(const Vec &w, const float *x, size_t n) // w[m][n] x[n]
{
    Vec y(w.size() / n);
    for (size_t i = 0; i < y.size(); i++) {
        double sum = 0;
        for (size_t j = 0; j < n; j++)
            sum += double(w[i * n + j]) * x[j];
        y[i] = float(sum);
    }
    return y;
}

static void rope(float *x, size_t dim, size_t position, double theta) // pairs (i, i + dim/2)
{
    for (size_t i = 0; i < dim / 2; i++) {
        const double angle = double(position) * std::pow(theta, -2.0 * double(i) / double(dim));
        const double a = x[i], b = x[i + dim / 2];
        x[i] = float(a * std::cos(angle) - b * std::sin(angle));
        x[i + dim / 2] = float(b * std::cos(angle) + a * std::sin(angle));
    }
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    check(rp_gguf_open(argv[1], &file, &err));
    const bool masked = argc < 5 || std::string(argv[4]) != "no-mask";
    std::vector<int32_t> ids;
    std::ifstream tokens(argv[2]);
    for (int32_t id; tokens >> id;)
        ids.push_back(id);
    const size_t n = ids.size(), dim = number("qwen3.embedding_length");
    const size_t heads = number("qwen3.attention.head_count");
    const size_t kv_heads = number("qwen3.attention.head_count_kv");
    const size_t hd = number("qwen3.attention.key_length");
    const int layers = int(number("qwen3.block_count"));
    const double eps = real("qwen3.attention.layer_norm_rms_epsilon");
    const double theta = real("qwen3.rope.freq_base");
    rp_dump *dump = rp_dump_open(argv[3], layers, "my-engine");
    rp_dump_tokens(dump, ids.data(), n);

    const Vec embedding = load("token_embd");
    Vec x(n * dim);
    for (size_t p = 0; p < n; p++)
        for (size_t i = 0; i < dim; i++)
            x[p * dim + i] = embedding[size_t(ids[p]) * dim + i];
    rp_dump_rows(dump, "emb", 0, n, dim, x.data());

    for (int l = 0; l < layers; l++) {
        const std::string blk = "blk." + std::to_string(l) + ".";
        const Vec wq = load(blk + "attn_q"), wk = load(blk + "attn_k"), wv = load(blk + "attn_v");
        const Vec wo = load(blk + "attn_output"), norm = load(blk + "attn_norm");
        const Vec q_norm = load(blk + "attn_q_norm"), k_norm = load(blk + "attn_k_norm");
        const Vec gate = load(blk + "ffn_gate"), up = load(blk + "ffn_up");
        const Vec down = load(blk + "ffn_down"), ffn_norm = load(blk + "ffn_norm");
        std::vector<Vec> q(n), k(n), v(n);
        for (size_t p = 0; p < n; p++) {
            Vec h(&x[p * dim], &x[p * dim] + dim);
            rms_norm(h.data(), norm, eps);
            q[p] = times(wq, h.data(), dim), k[p] = times(wk, h.data(), dim);
            v[p] = times(wv, h.data(), dim);
            for (size_t i = 0; i < heads + kv_heads; i++) {
                float *head = i < heads ? &q[p][i * hd] : &k[p][(i - heads) * hd];
                rms_norm(head, i < heads ? q_norm : k_norm, eps);
                rope(head, hd, p, theta);
            }
        }
        for (size_t p = 0; p < n; p++) {
            const size_t seen = masked ? p + 1 : n;
            Vec out(heads * hd);
            for (size_t i = 0; i < heads; i++) {
                const size_t kv = i / (heads / kv_heads) * hd;
                std::vector<double> score(seen);
                double max = -1e300, total = 0;
                for (size_t t = 0; t < seen; t++) {
                    for (size_t j = 0; j < hd; j++)
                        score[t] += double(q[p][i * hd + j]) * k[t][kv + j] / std::sqrt(double(hd));
                    max = score[t] > max ? score[t] : max;
                }
                for (double &s : score)
                    total += s = std::exp(s - max);
                for (size_t t = 0; t < seen; t++)
                    for (size_t j = 0; j < hd; j++)
                        out[i * hd + j] += float(score[t] / total * v[t][kv + j]);
            }
            const Vec attn = times(wo, out.data(), out.size());
            for (size_t i = 0; i < dim; i++)
                x[p * dim + i] += attn[i];
        }
        rp_dump_layer(dump, l, "postattn", 0, n, dim, x.data());
        for (size_t p = 0; p < n; p++) {
            Vec h(&x[p * dim], &x[p * dim] + dim);
            rms_norm(h.data(), ffn_norm, eps);
            Vec g = times(gate, h.data(), dim), u = times(up, h.data(), dim);
            for (size_t i = 0; i < g.size(); i++)
                g[i] = float(g[i] / (1 + std::exp(-double(g[i]))) * u[i]);
            const Vec y = times(down, g.data(), g.size());
            for (size_t i = 0; i < dim; i++)
                x[p * dim + i] += y[i];
        }
        rp_dump_layer(dump, l, nullptr, 0, n, dim, x.data());
    }

    const Vec norm = load("output_norm");
    for (size_t p = 0; p < n; p++) {
        rms_norm(&x[p * dim], norm, eps);
        rp_dump_rows(dump, "post_norm", (long long)p, 1, dim, &x[p * dim]);
        const Vec logits = times(embedding, &x[p * dim], dim);
        rp_dump_rows(dump, "logits", (long long)p, 1, logits.size(), logits.data());
    }
    if (rp_dump_finish(dump) != 0)
        std::fprintf(stderr, "my-engine: %s\n", rp_dump_error(dump));
    const int failed = rp_dump_close(dump);
    rp_gguf_close(file);
    return failed ? 2 : 0;
}
