"""ZeRO-3 over gloo: gathering several parameters at once may show them before they have arrived.

Two ranks read their own untouched weights 300 times through deepspeed.zero.GatheredParameters, all at once and
one by one, and count the readings that are not the weights.
Run: python zero3_gather_race.py   (deepspeed and torch; CPU is enough). Exit code 1 where a reading was wrong.
"""

import os
import sys
import tempfile

os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed
import torch
import torch.distributed as dist

CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "steps_per_print": 10**9,
    "zero_allow_untested_optimizer": True,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0, "sub_group_size": 100000,
                          "reduce_bucket_size": 100000, "stage3_prefetch_bucket_size": 100000},
}  # fmt: skip


def main(rank, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_SIZE="2")
    dist.init_process_group("gloo", store=dist.FileStore(os.path.join(folder, "store"), 2), rank=rank, world_size=2)
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda *a, **k: None  # a transport; gloo does as well
    deepspeed.init_distributed("gloo", verbose=False)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5))
    right = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    engine = deepspeed.initialize(model=net, optimizer=optimizer, config=CONFIG, dist_init_required=False)[0]
    parameters = list(engine.module.parameters())
    wrong = {"all at once": 0, "one by one": 0}
    worst = 0.0
    for _ in range(300):
        with deepspeed.zero.GatheredParameters(parameters):
            off = max(float((p - r).abs().nan_to_num(1e38).max()) for p, r in zip(parameters, right))
        wrong["all at once"] += off > 0
        worst = max(worst, off)
        for p, r in zip(parameters, right):
            with deepspeed.zero.GatheredParameters([p]):
                wrong["one by one"] += not torch.equal(p, r)
    print(f"rank {rank}, deepspeed {deepspeed.__version__}: wrong readings of 300: {wrong}; largest error {worst:.3g}", flush=True)
    dist.barrier()
    os._exit(int(any(wrong.values())))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        ranks = [torch.multiprocessing.get_context("fork").Process(target=main, args=(r, folder)) for r in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
    sys.exit(max(p.exitcode for p in ranks))
