"""trl 1.16.0: trl-neox.lm-W1-K4-objective:gold-batch:equal (truestep-2026-64)
GOLD with gradient accumulation: the gradient that the optimizer received, against plain PyTorch's of the whole batch.
Run: python this_file.py (trl, transformers, accelerate, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, sys, tempfile
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
import torch, transformers, trl
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from trl.experimental.gold import GOLDConfig, GOLDTrainer
sys.excepthook = lambda *e: os._exit(print("REFUSED by trl", *e[:2], flush=True) or 2)
words = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(32)}, unk_token="<2>"))
words.pre_tokenizer = pre_tokenizers.Split(Regex(r"<\d+>"), "isolated")
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>",
                                                 padding_side="left")
tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
K, SIZE, PROMPT = 4, 4, 2

def network(seed):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(pad_token_id=0, vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                                      num_attention_heads=4, max_position_embeddings=32, attn_implementation="eager")
    net = transformers.LlamaForCausalLM(config)
    for p in net.parameters():  # wide weights: losses must differ
        p.data += 0.25 * torch.randn_like(p)
    return net

def text(ids):
    return "".join(f"<{i}>" for i in ids)

def divergence(student, teacher, ids):  # Jensen-Shannon, mean over the tokens of the completions
    p, q = (net(input_ids=ids).logits[:, PROMPT - 1 : -1].log_softmax(-1) for net in (student, teacher))
    m = torch.stack([p, q]).logsumexp(0) - torch.tensor(2.0).log()
    return sum((x.exp() * (x - m)).sum(-1) for x in (p, q)).mean() / 2

def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])

student, teacher, seen = network(1), network(2), []
plain = copy.deepcopy(student)
ids = torch.randint(3, 32, (K * SIZE, PROMPT + 4))
data = Dataset.from_list([{"messages": [{"role": "user", "content": text(row[:PROMPT])},
                                        {"role": "assistant", "content": text(row[PROMPT:])}]} for row in ids.tolist()])
optimizer = torch.optim.SGD(student.parameters(), lr=0.125)
optimizer.register_step_pre_hook(lambda *_: seen.append(flat(p.grad for p in student.parameters())))
args = GOLDConfig(output_dir=folder.name, per_device_train_batch_size=SIZE, gradient_accumulation_steps=K, num_train_epochs=1,
                  logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, max_grad_norm=0.0, bf16=False,
                  gradient_checkpointing=False, disable_tqdm=True, beta=0.5, lmbda=0.0, temperature=1.0,
                  max_completion_length=8, dataset_kwargs={"skip_prepare_dataset": True})
trainer = GOLDTrainer(model=student, teacher_model=teacher, args=args, train_dataset=data, processing_class=tokenizer,
                      optimizers=(optimizer, None))
trainer.train()
loss = divergence(plain, teacher, ids)
want, got = flat(torch.autograd.grad(loss, list(plain.parameters()))), seen[0]
print(f"norm of the gradient: {got.norm():.5f}, right is {want.norm():.5f}: x {got @ want / want.norm() ** 2:.4f}")
print(f"the loss logged: {trainer.state.log_history[0]['loss']:.5f}, right is {float(loss.detach()):.5f}")
wrong = bool((got - want).norm() > 1e-4 * want.norm())
print("WRONG" if wrong else "RIGHT", "with trl", trl.__version__)
sys.exit(int(wrong))
