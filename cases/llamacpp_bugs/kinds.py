"""The bugs that are put into llama.cpp, and the variants of it that are none. Data; run.py runs them.

A bug is another GGUF than the one that the dump is judged against (keys, tensors: mutate_gguf.py), or
tensors of the graph that are changed while it computes (changes: refparity-llamacpp-bugs --help).
"""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Model:
    """What a bug has to know of the model that it is put into."""

    arch: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    dim: int
    eps: float
    theta: float
    n_rot: int
    tensors: dict[str, tuple]  # name -> (shape, type)

    def is_full(self, layer: int) -> bool:
        """Attention with softmax, not the DeltaNet."""
        return f"blk.{layer}.attn_q.weight" in self.tensors

    def names(self, layer: int) -> dict[str, str]:
        """What llama.cpp's graph of this architecture calls a layer's tensors."""
        hybrid = self.arch == "qwen35"
        mixed = "attn_gated" if self.is_full(layer) else "final_output"
        found = {
            "postattn": "attn_residual" if hybrid else "ffn_inp",
            "preffn": "attn_post_norm" if hybrid else "ffn_norm",
            "mixed": mixed if hybrid else "kqv_out",  # the input of attention's output product
        }
        return {key: f"{name}-{layer}" for key, name in found.items()}

    @property
    def mixed_slot(self) -> str:
        """What is dumped of "mixed"."""
        return "mix" if self.arch == "qwen35" else "attn"

    def entering(self, layer: int) -> str:
        return f"l_out-{layer - 1}" if layer else self.embedding

    @property
    def embedding(self) -> str:
        return "model.input_embed" if self.arch == "qwen35" else "embd"

    @property
    def post_norm(self) -> str:
        return "post_attention_norm" if self.arch == "qwen35" else "ffn_norm"


# What comes before a slot that is dumped with the layers.
BEFORE_POSTATTN = (
    *("preattn", "q", "k", "v", "qnorm", "knorm", "qrope", "krope", "attn", "qkv", "a", "b", "conv", "decay", "beta"),
    *("delta", "z", "mix", "attnout"),
)
BEFORE_FFNOUT = ("gate", "up", "act")


def layers_slot(slot: str) -> str:
    """Where a dump of the layers shows what is wrong in a slot that it does not have."""
    if slot in BEFORE_POSTATTN:
        return "postattn"
    return "ffnout" if slot in BEFORE_FFNOUT else slot


@dataclass(frozen=True)
class Bug:
    """One bug at its place."""

    # What the wrong operations write, in forward order, without "h{layer}_"; "" for h{layer} itself; "*":
    # and everything after it.
    slots: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    tensors: list[tuple[str, str]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    def shown_in(self, level: str) -> list[str]:
        """The slots of a dump of that level that may fail; the first of them has to."""
        found = self.slots.split() or [""]
        return found if level == "operations" else list(dict.fromkeys(layers_slot(slot) for slot in found))


@dataclass(frozen=True)
class Kind:
    name: str
    layers: str  # "any", "full" or "linear" attention; "later": any but the first; "all full", "all",
    # of the whole model; "outside" the layers
    make: Callable  # (Model, layer, magnitude) -> Bug, or None where it does not apply
    accepted: tuple[str, ...]  # names that an explanation may give
    magnitudes: tuple[float, ...] = ()
    at: int | None = None  # the one position that it is at
    head: int | None = None
    modes: tuple[str, ...] = ("per-token", "batched", "batched")


MAGNITUDES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
AT = 7  # of bugs at a single position
UNEXPLAINED = ("unexplained",)


def blk(layer: int, name: str) -> str:
    return f"blk.{layer}.{name}"


def other_layer(m: Model, layer: int, names: tuple[str, ...]) -> int | None:
    """The nearest layer with the same tensors of the same shapes and types, a later one first."""
    for distance in range(1, m.n_layers):
        for other in (layer + distance, layer - distance):
            if all(
                blk(other, n) in m.tensors and m.tensors[blk(other, n)] == m.tensors.get(blk(layer, n)) for n in names
            ):
                return other
    return None


def of_other_layer(slot: str, *names: str) -> Callable:
    def make(m: Model, layer: int, _magnitude: float) -> Bug | None:
        other = other_layer(m, layer, names)
        if other is None:
            return None
        return Bug(slot, tensors=[(blk(layer, n), f"copy:{blk(other, n)}") for n in names])

    return make


def all_of_other_layer(m: Model, layer: int, _magnitude: float) -> Bug | None:
    names = tuple(name.split(".", 2)[2] for name in m.tensors if name.startswith(f"blk.{layer}."))
    return of_other_layer("preattn *", *names)(m, layer, 0.0)


def tensor(slot: str, name: str, op: str) -> Callable:
    """op on one tensor of the layer, if it has that."""

    def make(m: Model, layer: int, magnitude: float) -> Bug | None:
        full = blk(layer, name.replace("{post_norm}", m.post_norm))
        return Bug(slot, tensors=[(full, op.format(a=magnitude, **vars(m)))]) if full in m.tensors else None

    return make


def exchanged(slot: str, a: str, b: str) -> Callable:
    def make(m: Model, layer: int, _magnitude: float) -> Bug | None:
        first, second = blk(layer, a), blk(layer, b.replace("{post_norm}", m.post_norm))
        if first not in m.tensors or m.tensors[first] != m.tensors.get(second):
            return None
        return Bug(slot, tensors=[(first, f"copy:{second}"), (second, f"copy:{first}")])

    return make


def rope_ordering(m: Model, layer: int, _magnitude: float) -> Bug | None:
    """Rows of Q and K in the order of the other RoPE: the same as the other RoPE on rows in order."""
    if m.arch == "qwen35":
        return None  # Q stands beside its gate
    op = "interleave" if m.arch == "llama" else "halve"
    parts = [
        ("attn_q.weight", m.n_heads),
        ("attn_k.weight", m.n_kv_heads),
        ("attn_q_norm.weight", 1),
        ("attn_k_norm.weight", 1),
    ]
    return Bug(
        "q k qnorm knorm", tensors=[(blk(layer, n), f"{op}:{heads}") for n, heads in parts if blk(layer, n) in m.tensors]
    )


def change(slot: str, where: str, what: str) -> Callable:
    """what happens to a tensor of the layer's graph; to several, divided by &."""

    def make(m: Model, layer: int, magnitude: float) -> Bug:
        names = m.names(layer)
        texts = {"l": layer, "a": repr(float(magnitude)), "entering": m.entering(layer), "emb": m.embedding, **names}
        texts.update(heads=m.n_heads, channel=m.dim // 3, at=AT, before=m.entering(max(layer - 1, 0)))
        whats = what.split("&") if "&" in what else [what] * len(where.split("&"))
        pairs = zip(where.split("&"), whats, strict=True)
        changes = [f"{a.format(**texts)}={b.format(**texts)}" for a, b in pairs]
        return Bug(slot.format(mixed_slot=m.mixed_slot), changes=changes)

    return make


def only(arch: str, make: Callable) -> Callable:
    return lambda m, layer, magnitude: make(m, layer, magnitude) if m.arch in arch.split() else None


def keys(slot: str, make: Callable) -> Callable:
    return lambda m, _layer, magnitude: Bug(slot, keys={f"{m.arch}.{k}": v for k, v in make(m, magnitude).items()})


def outside(slot: str, **what: list) -> Callable:
    def make(m: Model, _layer: int, magnitude: float) -> Bug:
        changes = [text.format(emb=m.embedding, a=repr(float(magnitude)), at=AT) for text in what.get("changes", [])]
        return Bug(slot, tensors=what.get("tensors", []), changes=changes)

    return make


def rotated(name: str, where: str, at: str, accepted: tuple[str, ...], position: int | None = None) -> list[Kind]:
    """RoPE one position late, and by an angle that belongs to no position."""
    make = change("qrope krope" if where.startswith("Q") else "krope", where, "rotate,by={a}" + at)
    return [
        Kind("rope-position" + name, "full", make, accepted, (1.0,), at=position),
        Kind("rope-angle" + name, "full", make, (*accepted, *UNEXPLAINED), MAGNITUDES, at=position),
    ]


IN_FILE = [
    Kind(
        "rope-base",
        "all full",
        keys("qrope krope", lambda m, a: {"rope.freq_base": str(m.theta * (1 + a))}),
        ("rope-theta",),
        (1.0, -0.5, 1e-2, 1e-3, 1e-4, 1e-6),
    ),
    Kind(
        "rms-eps",
        "all",
        keys("preattn qnorm knorm delta mix preffn post_norm", lambda m, a: {"attention.layer_norm_rms_epsilon": str(m.eps * (1 + a))}),
        ("norm-eps",),
        (9.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-5),
    ),
    Kind(
        "rope-scaling",
        "all full",
        keys("qrope krope", lambda _, a: {"rope.scaling.type": "linear", "rope.scaling.factor": str(1 + a)}),
        ("rope-scaling",),
        (1.0, 3.0),
    ),
    Kind(
        "rope-dimension",
        "all full",
        only("qwen35", keys("qrope krope", lambda m, _: {"rope.dimension_count": str(m.n_rot // 2)})),
        ("rope-dimension",),
    ),
    Kind(
        "rope-freq-factors",
        "all full",
        lambda m, _l, _a: (
            Bug("qrope krope", tensors=[("rope_freqs.weight", "ones")]) if "rope_freqs.weight" in m.tensors else None
        ),
        ("rope-freq-factors",),
    ),
    Kind("rope-ordering", "full", rope_ordering, ("rope-ordering",)),
    Kind("attn-norm-ones", "any", tensor("preattn", "attn_norm.weight", "ones"), ("norm-weight-missing",)),
    Kind("attn-norm-plus-one", "any", tensor("preattn", "attn_norm.weight", "add:1"), ("norm-weight-offset",)),
    Kind("post-norm-ones", "any", tensor("preffn", "{post_norm}.weight", "ones"), ("norm-weight-missing",)),
    Kind("post-norm-plus-one", "any", tensor("preffn", "{post_norm}.weight", "add:1"), ("norm-weight-offset",)),
    Kind(
        "norms-swapped",
        "any",
        exchanged("preattn preffn", "attn_norm.weight", "{post_norm}.weight"),
        ("norm-weight-swapped",),
    ),
    Kind("q-norm-ones", "full", tensor("qnorm", "attn_q_norm.weight", "ones"), ("norm-weight-missing",)),
    Kind("k-norm-ones", "full", tensor("knorm", "attn_k_norm.weight", "ones"), ("norm-weight-missing",)),
    Kind(
        "gate-up-swapped",
        "any",
        exchanged("gate up", "ffn_gate.weight", "ffn_up.weight"),
        ("ffn-swapped", "weights-swapped"),
    ),
    Kind("k-of-other-layer", "full", of_other_layer("k", "attn_k.weight"), ("weights-other-layer",)),
    Kind("v-of-other-layer", "full", of_other_layer("v", "attn_v.weight"), ("weights-other-layer",)),
    Kind("down-of-other-layer", "any", of_other_layer("ffnout", "ffn_down.weight"), ("weights-other-layer",)),
    Kind("all-of-other-layer", "any", all_of_other_layer, ("weights-other-layer",)),
    Kind("down-doubled", "any", tensor("ffnout", "ffn_down.weight", "scale:2"), ("constant-factor",)),
    Kind("attn-output-doubled", "full", tensor("attnout", "attn_output.weight", "scale:2"), ("constant-factor",)),
    Kind("ssm-out-doubled", "linear", tensor("attnout", "ssm_out.weight", "scale:2"), ("constant-factor",)),
    Kind("down-row-outlier", "any", tensor("ffnout", "ffn_down.weight", "rows:9:10:8"), ("outlier-channel",)),
    Kind(
        "v-head-zeroed",
        "full",
        tensor("v", "attn_v.weight", "zero:0:{head_dim}"),
        ("attention-head", *UNEXPLAINED),
        head=0,
    ),
    Kind("ssm-a-zeroed", "linear", tensor("decay", "ssm_a", "zero:0:1"), ("delta-decay",)),
    Kind("ssm-dt-zeroed", "linear", tensor("decay", "ssm_dt.bias", "zero:0:1"), ("delta-dt-bias",)),
    Kind("ssm-conv-reversed", "linear", tensor("conv", "ssm_conv1d.weight", "reverse"), ("delta-conv-kernel",)),
    Kind("ssm-norm-ones", "linear", tensor("mix", "ssm_norm.weight", "ones"), ("norm-weight-missing",)),
    Kind(
        "output-norm-ones",
        "outside",
        outside("post_norm", tensors=[("output_norm.weight", "ones")]),
        ("norm-weight-missing",),
    ),
]

AT_RUN_TIME = [
    Kind(
        "ffn-factor", "any", change("ffnout", "ffn_out-{l}", "scale,by={a}"), ("constant-factor",), (-0.5, *MAGNITUDES)
    ),
    # (h + attention) (1 + A) - A h
    Kind(
        "attn-factor",
        "any",
        change("postattn", "{postattn}&{postattn}", "scale,by={a}&add,of={entering},by=-{a}"),
        ("constant-factor",),
        MAGNITUDES,
    ),
    # before the product, whose rounding may hide the factor
    Kind(
        "attn-mixed-factor",
        "any",
        change("{mixed_slot}", "{mixed}", "scale,by={a}"),
        ("constant-factor", *UNEXPLAINED),
        (-0.5, *MAGNITUDES),
    ),
    Kind("emb-leak", "later", change("", "l_out-{l}", "add,of={emb},by={a}"), ("residual-leak",), MAGNITUDES),
    Kind(
        "layer-leak",
        "later",
        change("postattn", "{postattn}", "add,of={before},by={a}"),
        ("residual-leak",),
        MAGNITUDES,
    ),
    Kind(
        "attn-residual-missing",
        "any",
        change("postattn", "{postattn}", "add,of={entering},by=-1"),
        ("residual-missing",),
    ),
    Kind(
        "attn-residual-twice", "any", change("postattn", "{postattn}", "add,of={entering},by=1"), ("residual-factor",)
    ),
    Kind("ffn-residual-missing", "any", change("", "l_out-{l}", "add,of={postattn},by=-1"), ("residual-missing",)),
    Kind("ffn-missing", "any", change("", "l_out-{l}", "copy,of={postattn}"), ("branch-missing", "constant-factor")),
    Kind("noise-ffn", "any", change("ffnout", "ffn_out-{l}", "noise,by={a}"), UNEXPLAINED, MAGNITUDES),
    Kind(
        "noise-ffn-at", "any", change("ffnout", "ffn_out-{l}", "noise,by={a},at={at}"), UNEXPLAINED, MAGNITUDES, at=AT
    ),
    Kind(
        "noise-attn-at", "any", change("postattn", "{postattn}", "noise,by={a},at={at}"), UNEXPLAINED, MAGNITUDES, at=AT
    ),
    Kind("noise-norm-at", "any", change("preffn", "{preffn}", "noise,by={a},at={at}"), UNEXPLAINED, MAGNITUDES, at=AT),
    Kind(
        "noise-head-at",
        "full",
        change("{mixed_slot}", "{mixed}", "noise,by={a},heads={heads},index=1,at={at}"),
        UNEXPLAINED,
        MAGNITUDES,
        at=AT,
        head=1,
    ),
    Kind(
        "head-zeroed",
        "full",
        change("{mixed_slot}", "{mixed}", "scale,by=-1,heads={heads},index=2"),
        ("attention-head",),
        head=2,
    ),
    Kind(
        "head-zeroed-at",
        "full",
        change("{mixed_slot}", "{mixed}", "scale,by=-1,heads={heads},index=2,at={at}"),
        ("attention-head",),
        at=AT,
        head=2,
    ),
    Kind(
        "heads-swapped",
        "full",
        change("{mixed_slot}", "{mixed}", "swap,heads={heads},index=1,with=2"),
        ("attention-head-mapping", *UNEXPLAINED),
    ),
    Kind(
        "attn-scale",
        "full",
        change("qrope", "Qcur-{l}/ROPE", "scale,by={a}"),
        ("attention-scale", "constant-factor"),
        MAGNITUDES,
    ),
    Kind(
        "qk-norm-missing-k",
        "full",
        only("qwen3", change("knorm", "Kcur_normed-{l}", "copy,of=Kcur-{l}/RESHAPE")),
        ("qk-norm-missing",),
    ),
    Kind(
        "qk-norm-missing-q",
        "full",
        only("qwen3", change("qnorm", "Qcur_normed-{l}", "copy,of=Qcur-{l}/RESHAPE")),
        ("qk-norm-missing",),
    ),
    Kind(
        "qk-norm-missing-k",
        "full",
        only("qwen35", change("knorm", "Kcur_normed-{l}", "copy,of=Kcur-{l} (reshaped)")),
        ("qk-norm-missing",),
    ),
    # at one position, an offset and a factor are the same
    *rotated("-at", "Qcur-{l}/ROPE&Kcur-{l}/ROPE", ",at={at}", ("rope-position", "rope-scaling"), AT),
    *rotated("-from", "Qcur-{l}/ROPE&Kcur-{l}/ROPE", ",from={at}", ("rope-position",)),
    *rotated("-of-k", "Kcur-{l}/ROPE", "", ("rope-position", "kv-shifted")),
    Kind(
        "outlier",
        "any",
        change("", "l_out-{l}", "channel,index={channel},by={a}"),
        ("outlier-channel",),
        (10.0, *MAGNITUDES),
    ),
    Kind(
        "outlier-at",
        "any",
        change("preffn", "{preffn}", "channel,index={channel},by={a},at={at}"),
        ("outlier-channel",),
        MAGNITUDES,
        at=AT,
    ),
    Kind("row-repeated", "any", change("", "l_out-{l}", "repeat,at={at}"), ("position-shifted",), at=AT),
    Kind("rows-late", "any", change("", "l_out-{l}", "repeat"), ("position-shifted",)),
    Kind("ffn-row-repeated", "any", change("ffnout", "ffn_out-{l}", "repeat,at={at}"), ("position-shifted",), at=AT),
    Kind("rounded-bf16", "any", change("", "l_out-{l}", "round,bits=8"), ("rounded-output",)),
    Kind("rounded-f16", "any", change("", "l_out-{l}", "round,bits=11"), ("rounded-output",)),
    Kind("rounded-16-bits", "any", change("ffnout", "ffn_out-{l}", "round,bits=16"), ("rounded-output", *UNEXPLAINED)),
    Kind("ffn-gate-missing", "any", change("act", "ffn_swiglu-{l}", "copy,of=ffn_up-{l}"), ("ffn-gate-missing",)),
    Kind(
        "delta-conv-silu",
        "linear",
        change("conv", "conv_output_silu-{l}", "copy,of=conv_output_raw-{l}"),
        ("delta-conv-silu",),
    ),
    Kind("delta-beta-doubled", "linear", change("beta", "beta_sigmoid-{l}", "scale,by=1"), ("delta-beta",)),
    Kind(
        "delta-beta",
        "linear",
        change("beta", "beta_sigmoid-{l}", "scale,by={a}"),
        ("delta-beta", *UNEXPLAINED),
        MAGNITUDES,
    ),
    Kind(
        "delta-decay",
        "linear",
        change("decay", "gate-{l}/MUL", "scale,by={a}"),
        ("delta-decay", *UNEXPLAINED),
        (-1.0, *MAGNITUDES),
    ),
    # under an RMS norm, which a factor passes by eps alone
    Kind(
        "delta-scale",
        "linear",
        change("delta", "q_conv_predelta-{l}", "scale,by={a}"),
        ("delta-scale", "norm-eps"),
        MAGNITUDES,
    ),
    Kind(
        "emb-factor",
        "outside",
        outside("emb", changes=["{emb}=scale,by={a}"]),
        ("constant-factor",),
        (1.0, 1e-2, 1e-4, 1e-6),
    ),
    Kind(
        "post-norm-factor",
        "outside",
        outside("post_norm", changes=["result_norm=scale,by={a}"]),
        ("constant-factor",),
        (1.0, 1e-2, 1e-4, 1e-6),
    ),
    Kind(
        "logits-noise-at",
        "outside",
        outside("logits", changes=["result_output=noise,by={a},at={at}"]),
        UNEXPLAINED,
        (1e-1, 1e-3, 1e-5, 1e-6),
        at=AT,
    ),
]

SHARED, STREAMS = "parallel:3", "parallel-streams:3"


def of_cache(which: str, cache: str) -> list[Kind]:
    """A row's K or V in the cell of a neighbour's row, and the other way round; at one position, or at all."""
    made = []
    for mode, name in ((SHARED, f"cache_{which}_l{{l}} ({cache}view)"), (STREAMS, f"cache_{which}_l{{l}} (reshaped) (view)")):
        for at, position in (("", None), (",at={at}", AT)):
            make = change("attn", f"{name}/SET_ROWS", "cells" + at)
            made.append(Kind(f"neighbour-cell-{which}", "full", make, UNEXPLAINED, at=position, modes=(mode,)))
    return made


# The prompt is the middle one of three sequences, and something of it is its neighbour's.
AMONG_NEIGHBOURS = [
    Kind("neighbour-seen", "full", change("attn", "kq_soft_max-{l}", "mask"), UNEXPLAINED, modes=(SHARED,)),
    Kind("neighbour-seen", "full", change("attn", "kq_soft_max-{l}", "mask,at={at}"), UNEXPLAINED, at=AT, modes=(SHARED,)),
    # they go on from those of the neighbour; by one: an offset between the slots of a batch
    Kind(
        "neighbour-positions",
        "full",
        change("qrope krope", "Qcur-{l}/ROPE&Kcur-{l}/ROPE", "positions,by={a}"),
        ("rope-position",),
        (61.0, 1.0),
        modes=(SHARED, STREAMS),
    ),
    *of_cache("k", ""),
    *of_cache("v", "reshaped) ("),
    Kind(
        "neighbour-state",
        "linear",
        change("delta", "state_predelta-{l}", "neighbour"),
        ("delta-state",),
        modes=(SHARED, STREAMS),
    ),
    Kind(
        "neighbour-conv-state",
        "linear",
        change("conv", "conv_states_reshaped-{l}", "neighbour"),
        UNEXPLAINED,
        modes=(SHARED, STREAMS),
    ),
]

KINDS = [*IN_FILE, *AT_RUN_TIME, *AMONG_NEIGHBOURS]


@dataclass(frozen=True)
class Variant:
    """llama.cpp without a bug: nothing may be reported."""

    cache: str = "f32"
    flash: bool = False
    mode: str = "batched"
    threads: int = 1

    @property
    def name(self) -> str:
        parts = [
            f"cache-{self.cache}",
            "flash" if self.flash else "",
            f"threads-{self.threads}" if self.threads > 1 else "",
        ]
        return "+".join(part for part in parts if part)


VARIANTS = [
    *(Variant(mode=mode) for mode in ("batched", "per-token", "batched:7", "batched:32", "batched:64", "batched:100")),
    *(Variant(cache, mode=mode) for cache in ("f32", "f16") for mode in (SHARED, STREAMS)),
    Variant(threads=2),
    *(Variant("f16", mode=mode) for mode in ("batched", "per-token", "batched:7")),
    *(
        Variant(c, True, mode)
        for c in ("f32", "f16", "q8_0", "q4_0")
        for mode in ("batched", "per-token", "batched:7", "batched:64")
    ),
    Variant("f16", True, threads=2),
]
