"""OpenRLHF 0.11.2: openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic (truestep-2026-80)

Calls DeepSpeed's engine as OpenRLHF's dynamic batches do (--train.dynamic_batch_enable; training_step of ray/ppo_actor.py and
ppo_critic.py): gradient_accumulation_steps = 1, one backward for each micro-batch, one step after the last. With ZeRO 1 and 2 the last
micro-batch alone is trained. engine.set_gradient_accumulation_boundary, which is there for this, makes the second half right.
Run: python this_file.py (deepspeed, torch; CPU). Exit code: 1 wrong, 0 right."""
import os, sys, warnings
os.environ.update(DS_ACCELERATOR="cpu", MASTER_ADDR="localhost", MASTER_PORT="0", RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_SIZE="1")
warnings.simplefilter("ignore")
import deepspeed, torch
from deepspeed.utils import safe_get_full_fp32_param

sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
torch.manual_seed(0)
BATCHES = torch.randn(4, 3, 8)

def model():
    torch.manual_seed(1)
    return torch.nn.Linear(8, 1, bias=False)

def loss_of(net, batch):  # a quarter each: their sum is the mean over all
    return net(batch).square().mean() / len(BATCHES)

def consumed(stage, told):
    """What SGD with learning rate 1 took off the weight; told: the engine learns which backward is the last."""
    net = model()
    before, optimizer = net.weight.detach().clone(), torch.optim.SGD(net.parameters(), lr=1.0)
    config = {"train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": 1, "zero_optimization": {"stage": stage},
              "zero_allow_untested_optimizer": True}
    engine = deepspeed.initialize(model=net, optimizer=optimizer, config=config)[0]
    for k, batch in enumerate(BATCHES):
        if told:
            engine.set_gradient_accumulation_boundary(k == len(BATCHES) - 1)
        engine.backward(loss_of(engine, batch))
    engine.step()
    return before - (safe_get_full_fp32_param(net.weight) if stage else net.weight.detach())

reference = model()
each = [torch.autograd.grad(loss_of(reference, batch), reference.weight)[0] for batch in BATCHES]
whole, wrong = sum(each), []
for told in (False, True):
    for stage in (0, 1, 2, 3):
        off = [float((consumed(stage, told) - want).norm() / want.norm()) for want in (whole, each[-1])]
        how = "told which is the last" if told else "as OpenRLHF calls it "
        print(f"ZeRO {stage}, {how}: off by {off[0]:.2g} from all micro-batches, by {off[1]:.2g} from the last one alone")
        if not told and not off[0] <= 1e-5:
            wrong.append(stage)
print(f"deepspeed {deepspeed.__version__}:", f"WRONG with ZeRO {wrong}" if wrong else "right")
sys.exit(bool(wrong))
