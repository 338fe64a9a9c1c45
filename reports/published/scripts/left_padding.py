"""trl 1.16.0: truestep-2026-62 (GKD, DistillationTrainer), -72 (A*-PO), -40 (GRPO), trl-6800 (Online DPO)
What a training step's forward makes of a row that is padded on the left, against the same row by itself: GPT-2, then Llama.
Run: python this_file.py (trl, transformers, accelerate, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, importlib, os, sys, tempfile
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
import torch, transformers, trl
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
sys.excepthook = lambda *e: os._exit(print("REFUSED by trl", *e[:2], flush=True) or 2)
words = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(32)}, unk_token="<2>"))
words.pre_tokenizer = pre_tokenizers.Split(Regex(r"<\d+>"), "isolated")
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
PROMPTS = ["<5><6>", "<7><8><9><10><11>"]  # the first is padded by three
rows = [{"prompt": prompt} for prompt in PROMPTS]
answer = {"role": "assistant", "content": "<12><13><14>"}
chats = [{"messages": [{"role": "user", "content": prompt}, answer]} for prompt in PROMPTS]
scored = {"reward_funcs": lambda prompts, completions, **_: torch.rand(len(completions)).tolist()}
CASES = {  # trainer: where it is, its configuration, what it is given, its data
    "GKD": ("trl.experimental.gkd", {"lmbda": 0.0}, ("teacher_model",), chats),
    "Distillation": ("trl", {"max_completion_length": 3}, ("teacher_model",), rows),
    "OnlineDPO": ("trl.experimental.online_dpo", {"max_new_tokens": 3}, ("ref_model", "reward_funcs"), rows),
    "A2PO": ("trl.experimental.a2po", {"max_completion_length": 3, "num_value_samples": 2, "filter_all_incorrect": False},
             ("reward_funcs",), rows),
    "GRPO": ("trl", {"max_completion_length": 3, "num_generations": 2, "per_device_train_batch_size": 4},
             ("reward_funcs",), rows),
}

def network(name, seed):
    torch.manual_seed(seed)
    if name == "GPT2LMHeadModel":
        config = transformers.GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=4, n_positions=32, resid_pdrop=0.0,
                                         embd_pdrop=0.0, attn_pdrop=0.0, pad_token_id=0, bos_token_id=1, eos_token_id=1)
    else:
        config = transformers.LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                                          num_attention_heads=4, pad_token_id=0, eos_token_id=1)
    net = getattr(transformers, name)(config)
    for p in net.parameters():  # wide weights: positions must matter
        p.data += 0.25 * torch.randn_like(p)
    return net

def log_probability(net, hidden, ids):  # of a sequence [T], all tokens but the first
    logps = net.get_output_embeddings()(hidden)[:-1].log_softmax(-1)
    return float(logps.gather(-1, ids[1:, None]).sum().detach())

def seen_and_right(kind, name):
    """The log-probability of the first row that is padded on the left, as the step saw it and as the row has by itself."""
    place, options, wanted, data = CASES[kind]
    net, found = network(name, 1), []
    plain = copy.deepcopy(net)

    def watch(_, given, named, output):
        mask = named.get("attention_mask")
        if torch.is_grad_enabled() and not found and mask is not None and mask.dim() == 2:
            ids = given[0] if given else named["input_ids"]
            row = int(mask[:, 0].eq(0).nonzero()[0])
            real = mask[row].bool()
            alone = plain.base_model(input_ids=ids[row][real][None]).last_hidden_state[0]
            found.extend(log_probability(plain, h, ids[row][real]) for h in (output.last_hidden_state[row][real], alone))

    net.base_model.register_forward_hook(watch, with_kwargs=True)
    home = importlib.import_module(place)
    args = getattr(home, f"{kind}Config")(**{
        "output_dir": folder.name, "per_device_train_batch_size": 2, "max_steps": 1, "save_strategy": "no",
        "report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True,
        "logging_strategy": "no", **options})
    others = {"teacher_model": network(name, 2), "ref_model": network(name, 2), **scored}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>",
                                                     padding_side="left", chat_template=CHAT)
    getattr(home, f"{kind}Trainer")(model=net, args=args, train_dataset=Dataset.from_list(data), processing_class=tokenizer,
                                    **{key: others[key] for key in wanted}).train()
    return found

wrong = False
for name in ("GPT2LMHeadModel", "LlamaForCausalLM"):
    for kind in CASES:
        seen, right = seen_and_right(kind, name)
        off = abs(seen - right) > 1e-3
        wrong |= off
        mark = "  <- WRONG" if off else ""
        print(f"{kind:12} {name:16} log-probability {seen:9.4f}, right is {right:9.4f}{mark}", flush=True)
print("WRONG" if wrong else "RIGHT", "with trl", trl.__version__)
sys.exit(int(wrong))
