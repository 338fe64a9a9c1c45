"""trl 1.16.0: trl-neox.lm-W2-K1-objective:gkd (truestep-2026-61)
GKD on two ranks: the gradient that the optimizer received, against plain PyTorch's of the whole batch.
Run: python this_file.py (trl, transformers, accelerate, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, socket, sys, tempfile
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
WORLD = 2
rank = int(os.fork() == 0)  # this process is rank 0, its child rank 1
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD), LOCAL_WORLD_SIZE=str(WORLD),
                  MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1", TRL_EXPERIMENTAL_SILENCE="1")
if rank:
    sys.stdout = sys.stderr = open(os.devnull, "w")
import torch, transformers, trl
from datasets import Dataset
from tokenizers import Tokenizer, models
from trl.experimental.gkd import GKDConfig, GKDTrainer
sys.excepthook = lambda *e: os._exit(print("REFUSED by trl", *e[:2], flush=True) or 2)
words = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(32)}, unk_token="<2>"))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>")
PROMPT = 2  # tokens of every prompt

def network(seed):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(pad_token_id=0, vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                                      num_attention_heads=4, max_position_embeddings=32, attn_implementation="eager")
    net = transformers.LlamaForCausalLM(config)
    for p in net.parameters():  # wide weights: losses must differ
        p.data += 0.25 * torch.randn_like(p)
    return net

def collate(rows):
    ids = torch.tensor([row["ids"] for row in rows])
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels,
            "prompts": ids[:, :PROMPT], "prompt_attention_mask": torch.ones_like(ids[:, :PROMPT])}

def divergence(student, teacher, ids):  # Jensen-Shannon, mean over the tokens of the completions
    p, q = (net(input_ids=ids).logits[:, PROMPT - 1 : -1].log_softmax(-1) for net in (student, teacher))
    m = torch.stack([p, q]).logsumexp(0) - torch.tensor(2.0).log()
    return sum((x.exp() * (x - m)).sum(-1) for x in (p, q)).mean() / 2

def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])

student, teacher, seen = network(1), network(2), []
plain = copy.deepcopy(student)
data = [{"ids": row} for row in torch.randint(3, 32, (8, 6)).tolist()]
optimizer = torch.optim.SGD(student.parameters(), lr=0.125)
optimizer.register_step_pre_hook(lambda *_: seen.append(flat(p.grad for p in student.parameters())))
args = GKDConfig(output_dir=f"{folder.name}/{rank}", per_device_train_batch_size=len(data) // WORLD, num_train_epochs=1,
                 logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, max_grad_norm=0.0, bf16=False,
                 gradient_checkpointing=False, beta=0.5, lmbda=0.0, disable_tqdm=True)
trainer = GKDTrainer(model=student, teacher_model=teacher, args=args, train_dataset=Dataset.from_list(data),
                     processing_class=tokenizer, data_collator=collate, optimizers=(optimizer, None))
trainer.train()
if rank:
    os._exit(0)
loss = divergence(plain, teacher, torch.tensor([row["ids"] for row in data]))
want, got = flat(torch.autograd.grad(loss, list(plain.parameters()))), seen[0]
print(f"norm of the gradient: {got.norm():.5f}, right is {want.norm():.5f}: x {got @ want / want.norm() ** 2:.4f}")
print(f"the loss logged: {trainer.state.log_history[0]['loss']:.5f}, right is {float(loss.detach()):.5f}")
wrong = bool((got - want).norm() > 1e-4 * want.norm())
print("WRONG" if wrong else "RIGHT", "with trl", trl.__version__)
sys.stdout.flush()
os._exit(int(wrong))
