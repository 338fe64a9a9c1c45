"""DeepSpeed 0.18.3 to 0.19.5 divide by gradient_accumulation_steps once for every output of forward that the gradient passes through.

Two shapes: a loss beside its logits (any model of transformers that is given labels) and a head's output beside the hidden states
(reward models and critics of OpenRLHF). Prints, for each parameter, the gradient that SGD received relative to plain PyTorch's.
Run: python this_file.py [direct] (deepspeed, torch; CPU). direct: loss.backward() instead of engine.backward(loss), wrong up to
0.19.8 at least. Exit code: 1 wrong, 0 right. (0.17.6 to 0.18.2 are wrong at stage 2 for another reason, #7718.)"""
import os, sys
os.environ.update(DS_ACCELERATOR="cpu", MASTER_ADDR="localhost", MASTER_PORT="0")
os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_SIZE="1")
import deepspeed, torch

K, direct = 4, "direct" in sys.argv[1:]

class Net(torch.nn.Module):
    def __init__(self, shape):
        super().__init__()
        torch.manual_seed(1)
        self.shape, self.body, self.head = shape, torch.nn.Linear(6, 8), torch.nn.Linear(8, 1)

    def forward(self, x):
        hidden = torch.tanh(self.body(x))
        logits = self.head(hidden)
        if self.shape == "loss beside logits":
            return {"loss": logits.square().mean(), "logits": logits}
        return {"reward": logits, "hidden": hidden}

def loss_of(output):
    return output["loss"] if "loss" in output else output["reward"].square().mean()

sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
batches = torch.randn(K, 4, 6, generator=torch.Generator().manual_seed(2))
wrong = False
for shape in ("loss beside logits", "reward beside hidden states"):
    right = Net(shape)
    torch.stack([loss_of(right(x)) for x in batches]).mean().backward()
    for stage in (0, 1, 2, 3):
        if stage == 0 and direct:
            continue  # DeepSpeed refuses it
        net = Net(shape)
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        config = {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": K, "gradient_clipping": 0.0,
                  "zero_allow_untested_optimizer": True, "zero_optimization": {"stage": stage}}
        engine = deepspeed.initialize(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=1.0), config=config)[0]
        for x in batches:
            loss = loss_of(engine(x))
            loss.backward() if direct else engine.backward(loss)
            engine.step()
        found = {}
        for name, p in net.named_parameters():
            with deepspeed.zero.GatheredParameters([p], enabled=stage == 3):
                want = right.get_parameter(name).grad
                found[name] = round(((before[name] - p.detach()) * want).sum().item() / want.square().sum().item(), 4)
        wrong |= any(abs(ratio - 1) > 1e-3 for ratio in found.values())
        print(f"{shape}, stage {stage}: gradient / right gradient: {found}")
print("WRONG" if wrong else "RIGHT", "with deepspeed", deepspeed.__version__)
sys.exit(int(wrong))
