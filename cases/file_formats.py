"""Writes what people have: one forward by transformers, saved with the plain code that scripts use.

usage: file_formats.py [CHECKPOINT FIXTURE FOLDER] ...; the token ids are the fixture's.
"""

import pathlib
import pickle
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import save_file


def layer_outputs(model, ids):
    """Each layer's own output and the rest, by hooks, and transformers' own outputs of the same forward."""
    taken, handles = {}, []

    def keep(name):
        def hook(_module, _args, output):
            taken[name] = (output[0] if isinstance(output, tuple) else output)[0].float()

        return hook

    body = model.model
    handles.append(body.embed_tokens.register_forward_hook(keep("model.embed_tokens")))
    for i, layer in enumerate(body.layers):
        handles.append(layer.register_forward_hook(keep(f"model.layers.{i}")))
    handles.append(body.norm.register_forward_hook(keep("model.norm")))
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    for handle in handles:
        handle.remove()
    taken["lm_head"] = out.logits[0].float()
    return out, {name: value.clone() for name, value in taken.items()}


def write_hidden_states(folder, out, ids):
    states = {f"hidden_states.{i}": h for i, h in enumerate(out.hidden_states)}
    arrays = {name: h[0].numpy() for name, h in states.items()}
    logits = out.logits[0].numpy()
    np.savez(folder / "plain.npz", input_ids=np.array([ids], dtype=np.int32), logits=logits, **arrays)
    np.savez_compressed(folder / "stacked.npz", input_ids=ids, logits=logits,
                        hidden_states=torch.stack(out.hidden_states).numpy())
    np.savez(folder / "last_logits.npz", input_ids=ids, logits=logits[-1:], **arrays)
    np.savez(folder / "big_fortran.npz", input_ids=np.array(ids, dtype=">i8"),
             logits=np.asfortranarray(logits.astype(">f8")),
             **{name: np.asfortranarray(a.astype(">f4")) for name, a in arrays.items()})
    np.savez(folder / "batch_second.npz", input_ids=np.array(ids, dtype=np.uint16)[:, None],
             logits=logits[:, None], **{name: a[:, None] for name, a in arrays.items()})
    tensors = {"input_ids": torch.tensor([ids]), "logits": out.logits, **states}
    for name, dtype in (("f32", None), ("f16", torch.float16), ("bf16", torch.bfloat16), ("f64", torch.float64)):
        save_file({k: v.clone() if k == "input_ids" or not dtype else v.to(dtype) for k, v in tensors.items()},
                  folder / f"{name}.safetensors")
    save_file({"hidden_states": torch.stack(out.hidden_states), "logits": out.logits[0, -1:].clone(),
               "input_ids": torch.tensor(ids)}, folder / "stacked.safetensors")
    torch.save({"hidden_states": out.hidden_states, "logits": out.logits, "input_ids": torch.tensor([ids])},
               folder / "dict.pt")
    torch.save(out.hidden_states, folder / "tuple.pth")
    torch.save(dict(tensors), folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "arrays.pkl").write_bytes(pickle.dumps({"input_ids": np.array(ids), "logits": logits, **arrays}))
    return arrays, logits


def write_hooked(folder, taken, ids):
    """Folders of .npy and .bin, as engines' scripts write them."""
    names = {"model.embed_tokens": "embeddings", "model.norm": "final_norm", "lm_head": "logits"}
    for kind in ("npy", "bf16_npy", "bin", "last_bin", "own_names"):
        (folder / kind).mkdir()
    np.save(folder / "npy" / "token_ids.npy", ids)
    np.save(folder / "bf16_npy" / "input_ids.npy", np.array(ids, dtype="<u4"))
    np.save(folder / "own_names" / "prompt.npy", ids)
    for kind in ("bin", "last_bin"):
        (folder / kind / "tokens.txt").write_text("".join(f"{i}\n" for i in ids))
    for name, value in taken.items():
        plain = names.get(name, name.replace("model.layers.", "layer_"))
        padded = names.get(name, f"h{int(name.split('.')[-1]):02d}" if "layers" in name else name)
        slot = {"embeddings": "emb", "final_norm": "post_norm"}.get(padded, padded.replace("h0", "h"))
        bits = value.to(torch.bfloat16).view(torch.int16).numpy()
        np.save(folder / "npy" / f"{plain}.npy", value.numpy())
        np.save(folder / "bf16_npy" / f"{padded}.npy", bits.view("<V2"))  # as ml_dtypes' bfloat16 is saved
        np.save(folder / "own_names" / f"my {name}.npy", value.numpy())
        value.numpy().tofile(folder / "bin" / f"{slot}.bin")
        (value[-1:] if slot == "logits" else value).numpy().tofile(folder / "last_bin" / f"{slot}.bin")
    save_file({**taken, "tokens": torch.tensor(ids)}, folder / "modules.safetensors")
    (folder / "names.txt").write_text(
        '{"my model.embed_tokens": "emb", "my model.layers.{l}": "h{l}",\n "my model.norm": "post_norm", '
        '"my lm_head": "logits", "prompt": "tokens"}')


def write_wrong(folder, arrays, logits, ids):
    """What has to be found: each of these is no state of this model."""
    swapped = dict(arrays)
    swapped["hidden_states.1"], swapped["hidden_states.2"] = arrays["hidden_states.2"], arrays["hidden_states.1"]
    np.savez(folder / "wrong_swapped.npz", input_ids=ids, logits=logits, **swapped)
    shifted = {f"hidden_states.{i}": arrays[f"hidden_states.{i + 1}"] for i in range(len(arrays) - 1)}
    np.savez(folder / "wrong_shifted.npz", input_ids=ids, logits=logits, **shifted)
    transposed = {name: np.ascontiguousarray(a.T).reshape(a.shape) for name, a in arrays.items()}
    save_file({"input_ids": torch.tensor(ids), "logits": torch.tensor(logits),
               **{name: torch.tensor(a) for name, a in transposed.items()}}, folder / "wrong_transposed.safetensors")
    np.savez(folder / "wrong_turned.npz", input_ids=ids, logits=logits, **{name: a.T for name, a in arrays.items()})
    np.savez(folder / "unknown.npz", *arrays.values(), input_ids=ids, logits=logits)


def write_fixture(folder, path):
    """The whole fixture, every operation's slots, as safetensors."""
    with np.load(path) as archive:
        save_file({name: torch.tensor(archive[name]) for name in archive.files}, folder / "fixture.safetensors")


def write_logits(folder, logits, ids):
    """As llama-debug --save-logits does, and the head of llama-perplexity's base file."""
    logits[-1].astype("<f4").tofile(folder / "llamacpp-tiny.bin")
    np.array(ids, dtype="<i4").tofile(folder / "llamacpp-tiny-tokens.bin")
    head = np.array([len(ids), logits.shape[1], 1, *ids], dtype="<i4")
    (folder / "base.kld").write_bytes(b"_logits_" + head.tobytes() + bytes(64))


def write_all(checkpoint, fixture, folder):
    folder.mkdir(parents=True, exist_ok=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = [int(i) for i in np.load(fixture)["tokens"]]
    out, taken = layer_outputs(model, ids)
    arrays, logits = write_hidden_states(folder, out, ids)
    write_hooked(folder, taken, ids)
    write_wrong(folder, arrays, logits, ids)
    write_logits(folder, logits, ids)
    write_fixture(folder, fixture)


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for i in range(1, len(sys.argv), 3):
        write_all(sys.argv[i], sys.argv[i + 1], pathlib.Path(sys.argv[i + 2]))


if __name__ == "__main__":
    main()
