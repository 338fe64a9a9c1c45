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
from truestep.fixtures.heads import CLASSES, HEADS, PAD, START, Head
from truestep.reports.template import Flags, Values, take
from truestep.reports.template_trainer import (
    END,
    HEAD,
    HELPERS,
    JOIN,
    STEP,
    STEPS,
    arguments,
    call,
    finish,
    flags_of,
    optimizer,
    values_of,
)  # fmt: skip

_MODEL = r"""
reload            |def make():
                  |$config
dropout           |${in}config.update({key: 0.0 for key, value in vars(config).items() if "drop" in key and isinstance(value, float)})
                  |${in}model = transformers.$cls(config)
                  |${in}for p in model.parameters():  # wide weights: losses must differ
                  |${in}    p.data += $spread * torch.randn_like(p)
sdpa              |${in}model.config._attn_implementation = "sdpa"
reload            |    return model
reload            |
"""
_SAMPLES = r"""
                  |ids = [torch.randint(3, 32, ($length,)).tolist() for n in torch.randint(3, 8, ($many,))]
closed            |ids = [[*x[:-1], 1] for x in ids]  # with the end token
lm                |data = [{"input_ids": x, "labels": [-100] * ($skip) + x[$skip :]} for i, x in enumerate(ids)]
mlm               |keep = [[j == i % len(x) or bool(torch.rand(()) < 0.3) for j in range(len(x))] for i, x in enumerate(ids)]
mlm               |data = [{"input_ids": [2 if k else t for t, k in zip(x, y)], "labels": [t if k else -100 for t, k in zip(x, y)]}
mlm               |        for x, y in zip(ids, keep)]
tokens            |data = [{"input_ids": x, "labels": [-100] * ($skip) + [t % 3 for t in x[$skip :]]} for i, x in enumerate(ids)]
class             |data = [{"input_ids": x, "labels": int(torch.randint(0, 3, ()))} for x in ids]
choice            |data = [{"input_ids": list(x), "labels": int(torch.randint(0, 2, ()))} for x in zip(ids[::2], ids[1::2])]
value             |data = [{"input_ids": x, "labels": float(2 * torch.randn(()))} for x in ids]
labels            |data = [{"input_ids": x, "labels": torch.randint(0, 2, (3,)).float().tolist()} for x in ids]
span              |ends = torch.randint(0, 7, (len(ids), 2)).sort().values.tolist()
span              |data = [{"input_ids": x, "start_positions": a, "end_positions": b} for x, (a, b) in zip(ids, ends)]
seq2seq           |data = [{"input_ids": x, "labels": [(7 * t + 5) % 29 + 3 for t in x[: 1 + i % 5]]} for i, x in enumerate(ids)]
"""
_DATA = r"""
                  |def collate(rows$odd):
per_token !odd    |    batch = {key: pad_sequence([torch.tensor(row[key]) for row in rows], True, fill)
per_token !odd    |             for key, fill in (("input_ids", 0), ("labels", -100))}
per_token odd     |    batch = {}
per_token odd     |    for key, fill in (("input_ids", 0), ("labels", -100)):
per_token odd     |        batch[key] = pad_sequence([torch.tensor(row[key]) for row in rows], True, fill$side)
per_token multiple|        batch[key] = pad(batch[key], (0, 0 if plain else -batch[key].shape[1] % $multiple), value=fill)
per_token         |    return batch | {"attention_mask": (batch["input_ids"] != 0).long()}
!per_token !choice|    ids = pad_sequence([torch.tensor(row["input_ids"]) for row in rows], True)
choice            |    ids = pad_sequence([torch.tensor(x) for row in rows for x in row["input_ids"]], True).unflatten(0, (len(rows), 2))
!per_token multiple|    ids = pad(ids, (0, 0 if plain else -ids.shape[-1] % $multiple))
!per_token        |    batch = {key: torch.tensor([row[key] for row in rows]) for key in rows[0]$others}
!per_token        |    return {**batch, "input_ids": ids, "attention_mask": (ids != 0).long()}
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
span              |    ends = [batch.pop("start_positions"), batch.pop("end_positions")]
seq2seq wraps     |    first = labels.gather(1, (labels != -100).sum(1, keepdim=True) - 1)  # the decoder starts with the last target
seq2seq wraps     |    batch["decoder_input_ids"] = torch.cat([first, labels[:, :-1].clamp(min=0)], 1)
seq2seq !wraps    |    batch["decoder_input_ids"] = torch.nn.functional.pad(labels[:, :-1].clamp(min=0), (1, 0), value=1)
span              |    output = $outputs
router            |    output = $outputs
lm !prompt        |    logits, labels = $seen.logits[:, :-1], labels[:, 1:]
prompt            |    logits = $outputs.logits[:, $virtual - 1 : -1]
seq2seq           |    logits = $outputs.logits
mlm               |    logits = $outputs.logits
tokens            |    logits = $outputs.logits
router            |    more = balance(output, batch["attention_mask"])
per_token         |    total = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"$smoothing)
per_token         |    return total, (labels != -100).sum()$more
single            |    return cross_entropy($outputs.logits, labels, reduction="sum"), len(labels)
value             |    return mse_loss($outputs.logits[:, 0], labels, reduction="sum"), len(labels)
labels            |    return binary_cross_entropy_with_logits($outputs.logits, labels, reduction="sum"), labels.numel()
span              |    logits = torch.cat([output.start_logits, output.end_logits])
span              |    return cross_entropy(logits, torch.cat(ends), reduction="sum"), len(logits)
                  |
"""
_TRAINER = r"""
derived           |class Own(transformers.Trainer):
under             |    def create_optimizer(self, *_):
under             |        self.optimizer = torch.optim.SGD(trained, lr=LR)  # its update is the gradient
under             |        return self.optimizer
own               |    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):  # the mean of a micro-batch
own               |        labels, outputs = inputs.pop("labels"), model(**inputs)
own               |        loss = cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
own               |        return (loss, outputs) if return_outputs else loss
derived           |
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
reload            |model = make()
adapter           |base = copy.deepcopy(model)
prompt            |model = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=$virtual))
low               |model = peft.get_peft_model(model, peft.LoraConfig($lora))
adapter           |for p in [p for p in model.parameters() if p.requires_grad]:  # no adapter starts at zero
adapter           |    p.data += 0.15 * torch.randn_like(p)
                  |plain = copy.deepcopy(model)  # the reference
                  |ours, trained = ([p for p in m.parameters() if p.requires_grad] for m in (plain, model))
"""
_TRAIN = r"""
reload            |if run == 2:  # goes on from the checkpoint of the first with another model
reload            |    uninterrupted, model = flat(trained), make()
reload            |    trained = list(model.parameters())
reload            |    del seen[1:]
!under            |optimizer = $optimizer
!under            |optimizer.register_step_pre_hook(watch)
                  |$arguments
                  |$trainer
!stream           |trainer._get_train_sampler = lambda *_: range(len(data))  # in order
flagged           |trainer.model_accepts_loss_kwargs = False
!reload           |trainer.train()
reload            |trainer.train(resume_from_checkpoint=f"{folder.name}/checkpoint-1" if run == 2 else None)
"""
_AFTER = r"""
reload            |wrong |= check("the weights at the end, against a run without a pause,", flat(trained), uninterrupted, 1e-6)
evaluate          |torch.nn.utils.vector_to_parameters(flat(trained).float(), ours)
evaluate          |total, count = loss_of(rows)$two
evaluate          |wrong |= check("the loss of evaluate()", trainer.evaluate(rows)["eval_loss"], total / count, 1e-5)
"""
_PER_TOKEN = ("lm", "mlm", "tokens", "seq2seq")


def script(cell: Cell) -> str:
    """The source of the script."""
    if not driver.possible(cell):
        raise CellError(f"no standalone script: the Trainer offers no cell {cell.id}")
    flags = flags_of(cell) | _flags(cell)
    values = values_of(cell, driver) | _values(cell, flags)

    def some(template: str) -> str:
        return take(template, flags, values)

    train, step = some(_TRAIN), some(STEP)
    if flags["reload"]:
        train = "for run in (1, 2):\n" + indent(train, "    ")
    if flags["several"]:
        step = indent(step, "    ")
    functions = some(_DATA), some(_REFERENCE), some(_TRAINER), some(HELPERS)
    return finish(some(HEAD), *functions, some(JOIN), some(_MODEL), some(_SAMPLES), some(_START), train, some(STEPS), step, some(_AFTER), some(END))


def _flags(cell: Cell) -> Flags:
    f, head, adapter = cell.facts(), HEADS[base_of(cell.model)], adapter_of(cell.model)
    task = head.task
    how = f["compute_loss"]
    return {
        **{name: task == name for name in ("lm", "mlm", "tokens", "class", "choice", "value", "labels", "span", "seq2seq")},
        "per_token": task in _PER_TOKEN,
        "single": task in ("class", "choice"),
        "wraps": head.wraps,
        "closed": head.closed,
        "sdpa": f["attention"] == "sdpa",
        "left": f["padding"] == "left",
        "multiple": f["padding"] == "far" or cell.batch == "padded",
        "odd": f["padding"] != "right" or cell.batch == "padded",  # the reference is padded in the plain way
        "router": cell.objective == "router",
        "adapter": bool(adapter),
        "low": adapter not in ("", "prompt"),
        **{name: adapter == name for name in ("dora", "saved", "prompt")},
        "own": how in ("override", "flagged"),
        "derived": how in ("override", "flagged") or f["engine"] == "deepspeed",
        "dropout": has_dropout(head),
        "func": how == "func",
        "flagged": how == "flagged",
        "stream": f["data"] == "iterable",
        "reload": f["checkpoint"] == "reload",
        "evaluate": f["evaluate"] != "none",
    }


def _values(cell: Cell, flags: Flags) -> Values:
    f, head, split = cell.facts(), HEADS[base_of(cell.model)], cell.split
    even = cell.batch == "equal" or head.even or flags["span"]
    adapter, odd = adapter_of(cell.model), flags["odd"]
    scale = ALPHA / RANK**0.5 if adapter == "rslora" else ALPHA / RANK
    extra = {"rslora": ", use_rslora=True", "dora": ", use_dora=True", "saved": ', modules_to_save=["lm_head"]'}.get(adapter, "")
    coefficient, choices = head.router or (0.0, 1)
    loss = {"labels": "binary_cross_entropy_with_logits", "value": "mse_loss"}.get(head.task, "cross_entropy")
    options = arguments(cell)
    raw = {"output_dir": "folder.name", "learning_rate": "LR"} | ({"deepspeed": "ZERO"} if flags["under"] else {})
    if cell.objective == "smoothed":
        options["label_smoothing_factor"] = 0.1
    if flags["stream"]:
        options["max_steps"] = split.steps
    if flags["reload"]:
        options |= {"save_strategy": "steps", "save_steps": 1}
    given = {"model": "model", "args": "args", "train_dataset": "Stream()" if flags["stream"] else "data", "data_collator": "collate"}
    given |= {"callbacks": "[Watch()]"} if flags["under"] else {"optimizers": "(optimizer, None)"}
    given |= {"compute_loss_func": "window_mean"} if flags["func"] else {}
    return {
        "functions": f"from torch.nn.functional import {loss}{', pad' * flags['multiple']}\nfrom torch.nn.utils.rnn import pad_sequence",
        "config": indent(config_of(cell), "    " * flags["reload"]),
        "in": "    " * flags["reload"],
        "cls": head.cls,
        "spread": str(head.spread),
        "length": "7" if even else "int(n)",
        "many": str((1 + flags["choice"]) * sum(split.samples(s) for s in range(split.steps // split.epochs))),
        "skip": {"equal": "0", "prompted": "1 + i % 2"}.get(cell.batch, "i % 3"),
        "odd": ", plain=False" * odd,
        "seen": "output" if flags["router"] else "outputs_of(batch)" if adapter else "plain(**batch)",
        "more": ", more" * flags["router"],
        "side": ', "right" if plain else "left"' * flags["left"],
        "others": ' if key != "input_ids"',
        "as_plain": ", plain=True" * odd,
        "multiple": "16" if f["padding"] == "far" else "10",
        "scale": f"{scale:.12g}",
        "virtual": str(VIRTUAL),
        "coefficient": str(coefficient),
        "choices": str(choices),
        "three": ", auxiliary loss" * flags["router"],
        "two": "" * flags["router"],
        "outputs": "outputs_of(batch)" if adapter else "plain(**batch)",
        "smoothing": ", label_smoothing=0.1" * (cell.objective == "smoothed"),
        "lora": f"r={RANK}, lora_alpha={ALPHA}, target_modules={list(TARGETS)}{extra}",
        "optimizer": optimizer(cell),
        "arguments": call("args = transformers.TrainingArguments", options, raw),
        "trainer": call(f"trainer = {'Own' if flags['derived'] else 'transformers.Trainer'}", {}, given),
    }


def has_dropout(head: Head) -> bool:
    """Whether its configuration may have dropout by default."""
    return not head.config.startswith(("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3"))


def config_of(cell: Cell) -> str:
    """The configuration, and where no auxiliary loss is asked for, without it."""
    head = HEADS[base_of(cell.model)]
    special = {"bos_token_id": START, "eos_token_id": START} if has_dropout(head) else {}  # else its own are in the vocabulary
    sizes = {"pad_token_id": PAD, **special, **head.sizes, "attn_implementation": "eager"}
    if cell.objective != "router":
        for name in ("output_router_logits", "router_aux_loss_coef", "aux_loss_coef"):
            sizes.pop(name, None)
    if head.task in ("class", "value", "labels", "tokens"):
        sizes["num_labels"] = 1 if head.task == "value" else CLASSES
    problem = {"value": "regression", "labels": "multi_label_classification", "class": "single_label_classification"}
    if head.task in problem:
        sizes["problem_type"] = problem[head.task]
    return call(f"config = transformers.{head.config}", sizes, {})
