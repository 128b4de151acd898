"""The fit check's prediction against the measured peak: `python benchmarks/fit.py`.

A random Llama of 50 million weights on a CPU, 8 rows of 256 tokens, each case in a process of its
own. There the allocator gives back what is freed at once, so that the high-water mark of memory is
that of tensors; the last column is with the allocator as it is.
"""

import json
import os
import subprocess
import sys

CASES = [(attention, again) for attention in ("eager", "sdpa") for again in (False, True)]
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}


def measured(attention: str, again: bool) -> tuple[int, int]:
    """Bytes of a micro-step beyond weights and gradients: predicted and measured."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from alpacafarm_core.machine import Machine
    from alpacafarm_core.train import trial
    from alpacafarm_core.train.batches import Tokens, padded
    from alpacafarm_core.train.forward import response_logprobs
    from alpacafarm_core.train.models import recompute
    from alpacafarm_core.train.room import Case, Frozen, predict

    machine = Machine(
        device="cpu", precision="float32", fit_check="yes", activation_checkpointing=again
    )
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=8192, hidden_size=512, intermediate_size=1536, num_hidden_layers=14,
                    num_attention_heads=8, num_key_value_heads=4, tie_word_embeddings=True)
    )  # fmt: skip
    model.set_attn_implementation(attention)
    if again:
        recompute(model)
    batch = padded([Tokens([3 + row] * 128, [9] * 128) for row in range(8)])
    work = trial.work_of(batch, 8, batch.ids.numel(), machine)
    guess = predict(Case([trial.shape_of(model, machine)], Frozen(), work))

    def micro_step() -> None:
        response_logprobs(model, batch).sum().backward()

    found = trial.check([model], micro_step, work, machine)
    assert found is not None
    return tuple(need.activations + need.passing for need in (guess, found.need))  # type: ignore[return-value]


def main() -> None:
    """Print one line for each case."""
    print(f"{'attention':10}{'again':8}{'predicted':>12}{'measured':>12}{'as it is':>12}   MiB")
    for case in CASES:
        found = []
        for variables in (GIVING_BACK, {}):
            words = [sys.executable, __file__, json.dumps(case)]
            run = subprocess.run(
                words, env=os.environ | variables, check=True, capture_output=True, text=True
            )
            found.append(json.loads(run.stdout.splitlines()[-1]))
        sizes = [found[0][0], found[0][1], found[1][1]]
        print(f"{case[0]:10}{case[1]!s:8}" + "".join(f"{size / 2**20:12.0f}" for size in sizes))


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(measured(*json.loads(sys.argv[1]))))
    else:
        main()
