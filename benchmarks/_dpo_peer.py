"""The other side of bench_dpo_step: DPO by TRL, or by a bare PyTorch loop, as a process of its own.

    python benchmarks/_dpo_peer.py trl JOB.json
    python benchmarks/_dpo_peer.py torch JOB.json

Needs torch and transformers, and for the first TRL 1.16; it imports nothing of jaxpref, so that it
can run in another environment. The job file names a model folder, batches of token ids and the
settings. It prints one JSON line when it is ready, then one for each line it reads from standard
input, in which it says how many steps to take; times are of the processor, not of the wall.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)


def say(record: dict[str, Any]) -> None:
    """Print a line for the other process."""
    print("@" + json.dumps(record), flush=True)


def wait() -> int:
    """Return how many steps the other process asks for; 0 ends."""
    line = sys.stdin.readline().strip()
    return int(line) if line else 0


def peak_mib() -> float:
    """Return the largest resident memory so far, in MiB (Linux; NaN elsewhere)."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:  # getrusage counts the parent's
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
    except OSError:
        return float("nan")


class Rounds:
    """Counts steps and hands over to the other process at the end of each round."""

    def __init__(self) -> None:
        self.left, self.times, self.losses = 0, [], []
        self.start = 0.0

    def begin(self) -> bool:
        """Start a step; return False when no more are wanted."""
        if self.left == 0:
            self.left = wait()
            if self.left == 0:
                return False
        self.start = time.process_time()
        return True

    def end(self, loss: float) -> None:
        """End a step."""
        self.times.append(time.process_time() - self.start)
        self.losses.append(loss)
        self.left -= 1
        if self.left == 0:
            say({"times": self.times, "losses": self.losses, "peak_mib": peak_mib()})
            self.times, self.losses = [], []


def padded(pairs: list[dict[str, list[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return tokens, attention mask and completion mask: the chosen, then the rejected."""
    rows = [(pair["prompt"], pair[side]) for side in ("chosen", "rejected") for pair in pairs]
    length = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    attend, completion = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor(prompt + answer)
        attend[row, :end] = 1
        completion[row, len(prompt) : end] = 1
    return tokens, attend, completion


def log_probabilities(model: Any, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the summed log-probability of each completion; logits are of its tokens alone."""
    tokens, attend, completion = batch
    hidden = model.model(input_ids=tokens, attention_mask=attend, use_cache=False)[0][:, :-1]
    wanted = completion[:, 1:].bool()
    logits = model.lm_head(hidden[wanted])
    targets = tokens[:, 1:][wanted]
    each = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    rows = wanted.nonzero()[:, 0]
    return torch.zeros(len(tokens)).index_add(0, rows, each)


def bare(job: dict[str, Any]) -> None:
    """Train with nothing but PyTorch and the model's own forward pass."""
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    batches = [padded(pairs) for pairs in job["batches"]]
    with torch.no_grad():
        reference = [log_probabilities(model, batch) for batch in batches]
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=job["learning_rate"], weight_decay=0.0, fused=True
    )
    say({"ready": True, "torch": torch.__version__})
    rounds, step = Rounds(), 0
    while rounds.begin():
        at = step % len(batches)
        ratio = log_probabilities(model, batches[at]) - reference[at]
        chosen, rejected = ratio.chunk(2)
        loss = -torch.nn.functional.logsigmoid(job["beta"] * (chosen - rejected)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rounds.end(loss.item())
        step += 1


def with_trl(job: dict[str, Any]) -> None:
    """Train with TRL's DPOTrainer: reference precomputed, no checkpointing, float32."""
    import trl
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    rounds = Rounds()

    class Trainer(trl.DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # token ids already, the same on both sides

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(train_dataset or self.train_dataset)

        def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
            self.last = super().training_step(*arguments, **options)
            return self.last

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not rounds.begin():
                os._exit(0)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            rounds.end(trainer.last.item())

    columns = {
        f"{name}_ids": [pair[name] for pairs in job["batches"] for pair in pairs]
        for name in ("prompt", "chosen", "rejected")
    }
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder
        settings = trl.DPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            precompute_ref_log_probs=True,
            per_device_train_batch_size=len(job["batches"][0]),
            max_steps=job["steps"],
            learning_rate=job["learning_rate"],
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=0.0,
            beta=job["beta"],
            max_length=None,
            save_strategy="no",
            logging_steps=10**6,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            optim="adamw_torch_fused",
        )
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32),
            args=settings,
            train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer_of(job["model"]),
            callbacks=[Clock()],
        )
        say({"ready": True, "torch": torch.__version__, "trl": trl.__version__})
        trainer.train()


def tokenizer_of(folder: str) -> Any:
    """Return the model's tokenizer, with some token to pad with."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        {"trl": with_trl, "torch": bare}[sys.argv[1]](json.load(file))
