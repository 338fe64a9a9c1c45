"""transformers' Trainer drops the optimizer that it was given as soon as DeepSpeed is on, without a word.

Needs torch, transformers, accelerate and deepspeed; a CPU is enough. Exits with 1 where another optimizer trains.
"""

import os
import sys

os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="29533", DS_ACCELERATOR="cpu")
import deepspeed
import torch
import transformers

if "deepspeed.comm.torch" in sys.modules:  # a shared-memory transport that takes minutes to build; gloo does the same
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda *a, **k: None
deepspeed.init_distributed("gloo", verbose=False)
config = transformers.LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                                  num_attention_heads=2, num_key_value_heads=2)  # fmt: skip
rows = [{"input_ids": [i, i + 1, i + 2], "labels": [i, i + 1, i + 2]} for i in range(8)]
steps = {"yours": 0}


class Mine(torch.optim.SGD):
    def step(self, *args, **kwargs):
        steps["yours"] += 1
        return super().step(*args, **kwargs)


for zero in (None, {"zero_optimization": {"stage": 1, "reduce_bucket_size": 100000}, "train_micro_batch_size_per_gpu": "auto",
                    "gradient_accumulation_steps": "auto", "zero_allow_untested_optimizer": True}):  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    arguments = transformers.TrainingArguments(
        output_dir="out", per_device_train_batch_size=2, learning_rate=0.1, report_to=[], disable_tqdm=True,
        use_cpu=True, save_strategy="no", deepspeed=zero,
    )  # fmt: skip
    mine = Mine(model.parameters(), lr=0.1)
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows, optimizers=(mine, None))
    steps["yours"] = 0
    trainer.train()
    used = trainer.optimizer
    while not isinstance(used, torch.optim.Optimizer) or hasattr(used, "optimizer"):
        used = used.optimizer
    print(f"DeepSpeed {'on ' if zero else 'off'}: {trainer.state.global_step} steps, of the optimizer that was given: "
          f"{steps['yours']}; in use: {type(used).__name__}{'   <- WRONG' if type(used) is not Mine else ''}")  # fmt: skip
print("WRONG" if steps["yours"] == 0 else "RIGHT")
sys.exit(steps["yours"] == 0)
