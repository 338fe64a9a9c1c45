"""trl 1.16.0: trl-neox.lm-W1-K1-objective:gkd-completions:student (truestep-2026-60)
GKD on completions of the student: the gradient that the optimizer received, against plain PyTorch's of what was generated.
Run: python this_file.py (trl, transformers, accelerate, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, sys, tempfile
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
import torch, transformers, trl
from datasets import Dataset
from tokenizers import Tokenizer, models
from trl.experimental.gkd import GKDConfig, GKDTrainer
sys.excepthook = lambda *e: os._exit(print("REFUSED by trl", *e[:2], flush=True) or 2)
words = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(32)}, unk_token="<2>"))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>")
PROMPT, WRITTEN, NEW = 2, 3, 6  # tokens of a prompt, of a completion of the data set, of one that is generated at most

def network(seed):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(pad_token_id=0, eos_token_id=1, vocab_size=32, hidden_size=16, intermediate_size=24,
                                      num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32)
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

def divergence(student, teacher, ids):  # (Jensen-Shannon summed over the tokens of the completions, number of tokens)
    p, q = (net(input_ids=ids).logits[:, PROMPT - 1 : -1].log_softmax(-1) for net in (student, teacher))
    m = torch.stack([p, q]).logsumexp(0) - torch.tensor(2.0).log()
    ended = (ids[:, PROMPT:] == 1).cumsum(1).cumsum(1)  # 1 at the first end of sequence
    keep = ended <= 1
    return (sum((x.exp() * (x - m)).sum(-1) for x in (p, q)) * keep).sum() / 2, keep.sum()

def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])

def generate(*given, **named):  # the model's own, remembered
    made.append(type(student).generate(student, *given, **named))
    return made[-1]

student, teacher, seen, made = network(1), network(2), [], []
plain = copy.deepcopy(student)
data = [{"ids": row} for row in torch.randint(3, 32, (8, PROMPT + WRITTEN)).tolist()]
student.generate = generate
optimizer = torch.optim.SGD(student.parameters(), lr=0.125)
optimizer.register_step_pre_hook(lambda *_: seen.append(flat(p.grad for p in student.parameters())))
args = GKDConfig(output_dir=folder.name, per_device_train_batch_size=len(data), num_train_epochs=1, logging_steps=1,
                 save_strategy="no", report_to="none", use_cpu=True, max_grad_norm=0.0, bf16=False, disable_tqdm=True,
                 gradient_checkpointing=False, beta=0.5, lmbda=1.0, temperature=1.0, max_new_tokens=NEW)
trainer = GKDTrainer(model=student, teacher_model=teacher, args=args, train_dataset=Dataset.from_list(data),
                     processing_class=tokenizer, data_collator=collate, optimizers=(optimizer, None))
trainer.train()
total, count = divergence(plain, teacher, made[0].sequences)
want, got = flat(torch.autograd.grad(total / count, list(plain.parameters()))), seen[0]
print(f"tokens generated: {int(count)}, tokens of the data set's completions: {len(data) * WRITTEN}")
print(f"norm of the gradient: {got.norm():.5f}, right is {want.norm():.5f}: x {got @ want / want.norm() ** 2:.4f}")
print(f"the loss logged: {trainer.state.log_history[0]['loss']:.5f}, right is {float((total / count).detach()):.5f}")
wrong = bool((got - want).norm() > 1e-4 * want.norm())
print("WRONG" if wrong else "RIGHT", "with trl", trl.__version__)
sys.exit(int(wrong))
