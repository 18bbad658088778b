"""Hugging Face's eager FP32 forward of the same tokens, and a command, in turn.

forward.py CHECKPOINT TOKENS THREADS ROUNDS COMMAND [ARGUMENT...]: TOKENS has an id a line. Prints the least
seconds and the least CPU seconds of the forward, the model being in memory and warm, then of the command.
"""

import sys
import time
from pathlib import Path

import in_turn
import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    checkpoint, tokens, n_threads, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(n_threads)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.tensor([[int(line) for line in Path(tokens).read_text().split()]])

    def forward() -> tuple[float, float]:
        start, cpu = time.perf_counter(), time.process_time()
        model(ids)
        return time.perf_counter() - start, time.process_time() - cpu

    forwards, commands = [], []
    with torch.no_grad():
        forward()
        for _ in range(rounds):
            forwards += [forward(), forward()]
            commands.append(in_turn.run(sys.argv[5:]))
    print(*in_turn.least(forwards), *in_turn.least(commands))


if __name__ == "__main__":
    main()
