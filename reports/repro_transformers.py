"""The standalone script of a cell of transformers' Trainer: a template of which a cell takes only the lines that it needs.

The script has a model, samples and a reference of its own. The reference is one forward and backward of plain PyTorch
in float32 over the whole padded batch of a step, from the weights that the Trainer had before it; what it is held
against is the gradient that the optimizer receives (a hook before its step; under DeepSpeed, the update of plain SGD).
The functions below the template say when a line is needed and what its values are.
"""

from __future__ import annotations

from textwrap import indent

from truestep.fixtures.adapters import ALPHA, RANK, TARGETS, VIRTUAL
from truestep.fixtures.cell import Cell, CellError, adapter_of, base_of
from truestep.fixtures.drivers import transformers as driver
from truestep.fixtures.heads import HEADS
from truestep.reports.repro_trainer import CHECKS, END, HEAD, Flags, Values, arguments, finish, number, of_trainer, optimizer
from truestep.reports.template import take

_MODEL = r"""
                  |def make():
                  |    config = $config
                  |    for key, value in vars(config).items():  # no dropout
                  |        setattr(config, key, 0.0 if "drop" in key and isinstance(value, float) else value)
                  |    net = transformers.$cls(config)
                  |    with torch.no_grad():  # wide weights: losses must differ
                  |        for p in filter(lambda p: p.requires_grad, net.parameters()):
                  |            p.copy_($spread * torch.randn_like(p) if p.dim() > 1 else p + 0.2 * torch.randn_like(p))
sdpa              |    net.config._attn_implementation = "sdpa"
                  |    return net
"""
_DATA = r"""
                  |def sample(i):
choice            |    ids = [torch.randint(3, 32, ($length,)).tolist() for _ in range(2)]
!choice           |    ids = torch.randint(3, 32, ($length,)).tolist()
closed            |    ids[-1] = 1  # the end token
lm                |    return {"input_ids": ids, "labels": [-100] * ($skip) + ids[$skip:]}
mlm               |    chosen = [t == i % len(ids) or bool(torch.rand(()) < 0.4) for t in range(len(ids))]
mlm               |    return {"input_ids": [2 if c else t for t, c in zip(ids, chosen)], "labels": [t if c else -100 for t, c in zip(ids, chosen)]}
tokens            |    return {"input_ids": ids, "labels": [-100] * ($skip) + torch.randint(0, 3, (len(ids),)).tolist()[$skip:]}
class             |    return {"input_ids": ids, "labels": int(torch.randint(0, 3, ()))}
choice            |    return {"input_ids": ids, "labels": int(torch.randint(0, 2, ()))}
value             |    return {"input_ids": ids, "labels": float(2 * torch.randn(()))}
labels            |    return {"input_ids": ids, "labels": torch.randint(0, 2, (3,)).float().tolist()}
span              |    start, end = torch.randint(0, 7, (2,)).sort().values.tolist()
span              |    return {"input_ids": ids, "start_positions": start, "end_positions": end}
seq2seq           |    return {"input_ids": ids, "labels": torch.randint(3, 32, (int(torch.randint(1, 6, ())),)).tolist()}
                  |
                  |def pad(values, fill$odd):
                  |    longest = max(map(len, values))
multiple          |    longest += 0 if plain else -longest % $multiple
left              |    if not plain:
left              |        return torch.tensor([[fill] * (longest - len(v)) + v for v in values])
                  |    return torch.tensor([v + [fill] * (longest - len(v)) for v in values])
                  |
                  |def collate(rows$odd):
                  |    batch = {key: [row[key] for row in rows] for key in rows[0]}
choice            |    ids = [ids for both in batch.pop("input_ids") for ids in both]
!choice           |    ids = batch.pop("input_ids")
padded            |    batch = {"labels": pad(batch["labels"], -100$given)}
!padded           |    batch = {key: torch.tensor(values) for key, values in batch.items()}
                  |    batch["input_ids"], batch["attention_mask"] = pad(ids, 0$given), pad([[1] * len(i) for i in ids], 0$given)
choice            |    for key in ("input_ids", "attention_mask"):
choice            |        batch[key] = batch[key].unflatten(0, (len(rows), 2))
                  |    return batch
                  |
"""
_REFERENCE = r"""
low               |def outputs_of(batch):  # the model with the weights that its adapter stands for
low               |    p, new = dict(plain.named_parameters()), {}
low               |    for key in [key for key in p if ".lora_A." in key]:
low               |        name = key.removeprefix("base_model.model.").partition(".lora_A.")[0]
low               |        weight, change = base.get_submodule(name).weight, $scale * p[key.replace("lora_A", "lora_B")] @ p[key]
low               |        moved = weight + (change if change.shape == weight.shape else change.T)
dora              |        m = next(v for k, v in p.items() if k.startswith(key.partition("lora_A")[0] + "lora_magnitude_vector"))
dora              |        moved = m.reshape(-1, 1) * moved / moved.norm(dim=1, keepdim=True).detach()
low               |        new[f"{name}.weight"] = moved
saved             |    new["lm_head.weight"] = p["base_model.model.lm_head.modules_to_save.default.weight"]
low               |    return torch.func.functional_call(base, new, (), batch)
low               |
prompt            |def outputs_of(batch):  # virtual tokens before every sequence; the last of them predicts the first token
prompt            |    before, ids, mask = next(iter(ours)), batch["input_ids"], batch["attention_mask"]
prompt            |    embeds = torch.cat([before.expand(len(ids), -1, -1), base.get_input_embeddings()(ids)], 1)
prompt            |    return base(inputs_embeds=embeds, attention_mask=torch.cat([mask.new_ones(len(ids), $virtual), mask], 1))
prompt            |
router            |def balance(output, mask):  # the load-balancing loss: arXiv 2101.03961, equations 4 to 6
router            |    logits = torch.cat([layer.reshape(-1, layer.shape[-1])[mask.flatten().bool()] for layer in output.router_logits])
router            |    chosen = torch.zeros_like(logits).scatter(1, logits.topk($choices).indices, 1.0)
router            |    return $coefficient * logits.shape[1] * (chosen.mean(0) * logits.softmax(-1).mean(0)).sum()
router            |
                  |def loss_of(rows):  # (sum over the targets of these samples, number of targets$three)
                  |    batch = collate(rows$as_plain)
!span             |    labels = batch.pop("labels")
span              |    start, end = batch.pop("start_positions"), batch.pop("end_positions")
seq2seq wraps     |    first = labels.gather(1, (labels != -100).sum(1, keepdim=True) - 1)  # the decoder starts with the last target
seq2seq wraps     |    batch["decoder_input_ids"] = torch.cat([first, labels[:, :-1].clamp(min=0)], 1)
seq2seq !wraps    |    batch["decoder_input_ids"] = torch.nn.functional.pad(labels[:, :-1].clamp(min=0), (1, 0), value=1)
                  |    output = $outputs
lm !prompt        |    logits, labels = output.logits[:, :-1], labels[:, 1:]
prompt            |    logits = output.logits[:, $virtual - 1 : -1]
per_token !lm     |    logits = output.logits
per_token         |    total = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"$smoothing)
per_token !router |    return total, (labels != -100).sum()
router            |    return total, (labels != -100).sum(), balance(output, batch["attention_mask"])
single            |    return cross_entropy(output.logits, labels, reduction="sum"), len(labels)
value             |    return (output.logits[:, 0] - labels).square().sum(), len(labels)
labels            |    return binary_cross_entropy_with_logits(output.logits, labels, reduction="sum"), labels.numel()
span              |    both = (output.start_logits, start), (output.end_logits, end)
span              |    return sum(cross_entropy(logits, at, reduction="sum") for logits, at in both), 2 * len(start)
                  |
"""
_TRAINER = r"""
                  |class InOrder(transformers.Trainer):
                  |    def _get_train_sampler(self, *_):
                  |        return range(len(data))
under             |    def create_optimizer(self, *_):
under             |        self.optimizer = torch.optim.SGD(trained, lr=LR)  # its update is the gradient
under             |        return self.optimizer
own               |    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):  # the mean of a micro-batch
own               |        labels = inputs.pop("labels")
own               |        outputs = model(**inputs)
own               |        loss = cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
own               |        return (loss, outputs) if return_outputs else loss
                  |
func              |def window_mean(outputs, labels, num_items_in_batch=None):  # the documented use of compute_loss_func
func              |    labels = labels[:, 1:].flatten()
func              |    count = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
func              |    return cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels, reduction="sum") / count
func              |
stream            |class Stream(torch.utils.data.IterableDataset):
stream            |    def __iter__(self):
stream            |        yield from data
stream            |
"""
_START = r"""
                  |torch.manual_seed($seed)
                  |model, data = make(), [sample(i) for i in range($total)]
adapter           |base = copy.deepcopy(model)
prompt            |model = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=$virtual))
low               |model = peft.get_peft_model(model, peft.LoraConfig($lora))
adapter           |with torch.no_grad():  # no adapter starts at zero
adapter           |    for p in filter(lambda p: p.requires_grad, model.parameters()):
adapter           |        p.add_(0.15 * torch.randn_like(p))
                  |plain = copy.deepcopy(model)  # the reference
                  |ours = [p for p in plain.parameters() if p.requires_grad]
"""
_TRAIN = r"""
reload            |model = model if run == 1 else make()  # the second goes on from the checkpoint of the first
                  |trained = [p for p in model.parameters() if p.requires_grad]
!under            |optimizer = $optimizer
!under            |optimizer.register_step_pre_hook(watch)
                  |args = $arguments
                  |trainer = InOrder(model, args, train_dataset=$dataset, data_collator=collate$more)
flagged           |trainer.model_accepts_loss_kwargs = False
!reload           |trainer.train()
reload            |trainer.train(resume_from_checkpoint=f"{folder.name}/checkpoint-1" if run == 2 else None)
reload            |if run == 1:
reload            |    uninterrupted = flat(trained)
reload            |    del before[1:], got[1:]
"""
_AFTER = r"""
reload            |wrong |= check("the weights at the end, against a run without a pause,", apart(flat(trained), uninterrupted))
evaluate          |torch.nn.utils.vector_to_parameters(flat(trained), ours)
evaluate          |total, count = loss_of(rows)$two
evaluate          |read = trainer.evaluate(eval_dataset=rows)["eval_loss"]
evaluate          |wrong |= check("the loss that evaluate() returns", abs(read - total / count) / abs(total / count), 5e-6)
"""
_PER_TOKEN = ("lm", "mlm", "tokens", "seq2seq")


def script(cell: Cell) -> str:
    """The source of the script."""
    if not driver.possible(cell):
        raise CellError(f"no standalone script: the Trainer offers no cell {cell.id}")
    flags = _flags(cell)
    values = of_trainer(cell, flags, driver) | _values(cell, flags)

    def some(template: str) -> str:
        return take(template, flags, values)

    train = some(_TRAIN)
    if flags["reload"]:
        train = "for run in (1, 2):\n" + indent(train, "    ")
    head = some(HEAD), "\n", some(_MODEL), "\n", some(_DATA), some(_REFERENCE), some(_TRAINER)
    return finish(*head, some(CHECKS[0]), some(_START), train, some(CHECKS[1]), some(_AFTER), some(END))


def _flags(cell: Cell) -> Flags:
    f, head, adapter = cell.facts(), HEADS[base_of(cell.model)], adapter_of(cell.model)
    task = head.task
    how = f["compute_loss"]
    return {
        **{name: task == name for name in ("lm", "mlm", "tokens", "class", "choice", "value", "labels", "span", "seq2seq")},
        "per_token": task in _PER_TOKEN,
        "single": task in ("class", "choice"),
        "padded": task in _PER_TOKEN,  # labels are as long as the sample
        "wraps": head.wraps,
        "closed": head.closed,
        "sdpa": f["attention"] == "sdpa",
        "left": f["padding"] == "left",
        "multiple": f["padding"] == "far" or cell.batch == "padded",
        "router": cell.objective == "router",
        "adapter": bool(adapter),
        "low": adapter not in ("", "prompt"),
        **{name: adapter == name for name in ("dora", "saved", "prompt")},
        "own": how in ("override", "flagged"),
        "func": how == "func",
        "flagged": how == "flagged",
        "stream": f["data"] == "iterable",
        "reload": f["checkpoint"] == "reload",
        "evaluate": f["evaluate"] != "none",
        "under": f["engine"] == "deepspeed",
        "stage3": f["engine"] == "deepspeed" and f["stage"] == 3,
        "hook": f["engine"] != "deepspeed",
    }


def _values(cell: Cell, flags: Flags) -> Values:
    f, head, split = cell.facts(), HEADS[base_of(cell.model)], cell.split
    even = cell.batch == "equal" or head.even or flags["span"]
    adapter, odd = adapter_of(cell.model), flags["left"] or flags["multiple"]
    scale = ALPHA / RANK**0.5 if adapter == "rslora" else ALPHA / RANK
    extra = {"rslora": ", use_rslora=True", "dora": ", use_dora=True", "saved": ', modules_to_save=["lm_head"]'}.get(adapter, "")
    coefficient, choices = head.router or (0.0, 1)
    functions = {"labels": "binary_cross_entropy_with_logits", "value": ""}.get(head.task, "cross_entropy")
    options = arguments(cell) | {"remove_unused_columns": False}
    if cell.objective == "smoothed":
        options["label_smoothing_factor"] = 0.1
    if flags["stream"]:
        options["max_steps"] = split.steps
    if flags["reload"]:
        options |= {"save_strategy": "steps", "save_steps": 1}
    more = ", optimizers=(optimizer, None)" * (not flags["under"])
    more += ", compute_loss_func=window_mean" * flags["func"] + ", callbacks=[Watch()]" * flags["under"]
    return {
        "functions": functions,
        "config": _config(cell),
        "cls": head.cls,
        "spread": str(head.spread),
        "length": "7" if even else "int(torch.randint(3, 8, ()))",
        "skip": {"equal": "0", "prompted": "1 + i % 2"}.get(cell.batch, "i % 3"),
        "odd": ", plain=False" * odd,
        "given": ", plain" * odd,
        "as_plain": ", plain=True" * odd,
        "multiple": "16" if f["padding"] == "far" else "10",
        "scale": number(scale),
        "virtual": str(VIRTUAL),
        "coefficient": str(coefficient),
        "choices": str(choices),
        "three": ", auxiliary loss" * flags["router"],
        "two": "[:2]" * flags["router"],
        "outputs": "outputs_of(batch)" if adapter else "plain(**batch)",
        "smoothing": ", label_smoothing=0.1" * (cell.objective == "smoothed"),
        "lora": f"r={RANK}, lora_alpha={ALPHA}, target_modules={list(TARGETS)}{extra}",
        "optimizer": optimizer(cell),
        "arguments": of_arguments("transformers.TrainingArguments", options, cell),
        "dataset": "Stream()" if flags["stream"] else "data",
        "more": more,
        "seed": str(cell.seed + 1),
    }
