"""One pair, compared as scripts in the field do it: load HF, run it, run the engine, NumPy diff.

usage: field.py CHECKPOINT GGUF ENGINE PROMPT_FILE

Every pair pays for loading the model: that is what a fixture saves. Prints the largest L2_rel.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Compares the layers but the last, whose own output `hidden_states` does not have."""
    checkpoint, gguf, engine, prompt = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    ids = tokenizer(Path(prompt).read_text(encoding="utf-8"), return_tensors="pt").input_ids
    with torch.no_grad():
        reference = model(ids, output_hidden_states=True)
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "dump"
        subprocess.run([engine, "--model", gguf, "--prompt-file", prompt, "--dump", str(dump)], check=True)
        worst = 0.0
        for layer, hidden in enumerate(reference.hidden_states[1:-1]):
            ref = hidden[0].numpy().astype(np.float64)  # [positions][dim]
            got = np.load(dump / f"h{layer}.npy").astype(np.float64)
            worst = max(worst, *(np.linalg.norm(got - ref, axis=1) / np.linalg.norm(ref, axis=1)))
    print(worst)


if __name__ == "__main__":
    main()
