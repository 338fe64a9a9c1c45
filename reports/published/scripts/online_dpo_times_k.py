"""trl 1.16.0: trl-llama.lm-W1-K4-objective:online_dpo (truestep-2026-70)
Online DPO with gradient accumulation: the gradient that the optimizer received, against plain PyTorch's of the whole batch.
Run: python this_file.py (trl, transformers, accelerate, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, sys, tempfile
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
import torch, transformers, trl
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch.nn.functional import logsigmoid
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer
sys.excepthook = lambda *e: os._exit(print("REFUSED by trl", *e[:2], flush=True) or 2)
words = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(32)}, unk_token="<2>"))
words.pre_tokenizer = pre_tokenizers.Split(Regex(r"<\d+>"), "isolated")
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>",
                                                 padding_side="left")
K, SIZE, PROMPT, BETA = 4, 4, 3, 0.25

def network(seed):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(pad_token_id=0, eos_token_id=1, vocab_size=32, hidden_size=16, intermediate_size=24,
                                      num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32)
    net = transformers.LlamaForCausalLM(config)
    for p in net.parameters():  # wide weights: losses must differ
        p.data += 0.25 * torch.randn_like(p)
    return net

def logps(net, ids):  # [2 B]: log-probability of every completion, up to its first end of sequence
    logits, target = net(input_ids=ids).logits[:, PROMPT - 1 : -1], ids[:, PROMPT:]
    keep = (target == 1).cumsum(1).cumsum(1) <= 1
    return (logits.log_softmax(-1).gather(-1, target[..., None])[..., 0] * keep).sum(1)

def loss_of(ids, rewards):  # mean over the pairs; the first completions of all prompts come first
    ratio = logps(plain, ids) - logps(reference, ids).detach()
    first, second = ratio.chunk(2)
    better, other = rewards.chunk(2)
    return -logsigmoid(BETA * torch.where(better > other, first - second, second - first)).mean()

def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])

def generate(*given, **named):  # the model's own, remembered
    made.append(type(policy).generate(policy, *given, **named).detach())
    return made[-1]

def reward(prompts, completions, **_):
    rewards.append(torch.rand(len(completions)))
    return rewards[-1].tolist()

policy, reference, seen, made, rewards = network(1), network(2), [], [], []
plain = copy.deepcopy(policy)
prompts = torch.randint(3, 32, (K * SIZE, PROMPT)).tolist()
data = Dataset.from_list([{"prompt": "".join(f"<{i}>" for i in row)} for row in prompts])
policy.generate = generate
optimizer = torch.optim.SGD(policy.parameters(), lr=0.125)
optimizer.register_step_pre_hook(lambda *_: seen.append(flat(p.grad for p in policy.parameters())))
args = OnlineDPOConfig(output_dir=folder.name, per_device_train_batch_size=SIZE, gradient_accumulation_steps=K,
                       num_train_epochs=1, logging_steps=1, save_strategy="no", report_to="none", use_cpu=True,
                       max_grad_norm=0.0, bf16=False, gradient_checkpointing=False, disable_tqdm=True, beta=BETA,
                       max_new_tokens=5)
trainer = OnlineDPOTrainer(model=policy, ref_model=reference, reward_funcs=reward, args=args, train_dataset=data,
                           processing_class=tokenizer, optimizers=(optimizer, None))
trainer.train()
loss = sum(loss_of(ids, r) for ids, r in zip(made, rewards)) / K  # micro-batches have as many pairs
want, got = flat(torch.autograd.grad(loss, list(plain.parameters()))), seen[0]
print(f"norm of the gradient: {got.norm():.5f}, right is {want.norm():.5f}: x {got @ want / want.norm() ** 2:.4f}")
print(f"the loss logged: {trainer.state.log_history[0]['loss']:.5f}, right is {float(loss.detach()):.5f}")
wrong = bool((got - want).norm() > 1e-4 * want.norm())
print("WRONG" if wrong else "RIGHT", "with trl", trl.__version__)
sys.exit(int(wrong))
