"""OpenRLHF 0.11.2: openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic (truestep-2026-80)
Needs: pip install torch deepspeed==0.19.7      On a CPU: DS_ACCELERATOR=cpu
Right: four backward calls before one step give the gradient of the four micro-batches, as they do with ZeRO 0 and 3.
Wrong: with ZeRO 1 and 2 the gradient is that of the last one. OpenRLHF's dynamic batches (--train.dynamic_batch_enable, in
       openrlhf/trainer/ray/ppo_actor.py and ppo_critic.py) call the engine so: gradient_accumulation_steps = 1, one backward for each
       micro-batch, one step. DeepSpeed takes every backward for the end of an accumulation; its documented way is
       engine.set_gradient_accumulation_boundary, which makes the second row of this script right.
"""

import os

import deepspeed
import torch

os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="29531")
deepspeed.init_distributed(dist_backend="gloo" if os.environ.get("DS_ACCELERATOR") == "cpu" else "nccl", verbose=False)
torch.manual_seed(0)
BATCHES = torch.randn(4, 3, 8)


def gradient(stage: int, told: bool) -> torch.Tensor:
    """What the engine holds after four backward calls, before its step.

    told : whether the engine is told which backward is the last
    """
    torch.manual_seed(1)
    model = torch.nn.Linear(8, 1, bias=False)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config={**config, "zero_allow_untested_optimizer": True})
    before = deepspeed.utils.safe_get_full_fp32_param(model.weight).clone() if stage else model.weight.detach().clone()
    for k, batch in enumerate(BATCHES):
        if told:
            engine.set_gradient_accumulation_boundary(k == len(BATCHES) - 1)
        engine.backward(engine(batch.to(engine.device)).square().mean() / len(BATCHES))
    engine.step()
    after = deepspeed.utils.safe_get_full_fp32_param(model.weight) if stage else model.weight.detach()
    return (before - after).cpu()  # SGD, learning rate 1


reference = torch.nn.Linear(8, 1, bias=False)
torch.manual_seed(1)
reference.reset_parameters()
sum(reference(batch).square().mean() / len(BATCHES) for batch in BATCHES).backward()
last = torch.autograd.grad(reference(BATCHES[-1]).square().mean() / len(BATCHES), reference.weight)[0]
wrong = []
for told in (False, True):
    for stage in (0, 1, 2, 3):
        found = gradient(stage, told)
        rel = float((found - reference.weight.grad).norm() / reference.weight.grad.norm())
        of_last = float((found - last).norm() / last.norm())
        print(f"ZeRO {stage}, {'told which is the last' if told else 'as OpenRLHF does it'}: off by {rel:.2g}, from the last by {of_last:.2g}")
        if not told and rel > 1e-5:
            wrong.append(stage)
print(f"WRONG with ZeRO {wrong}: the last micro-batch alone is trained" if wrong else "right")
raise SystemExit(bool(wrong))
