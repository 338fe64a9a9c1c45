"""Fine-tunes a causal language model with DeepSpeed: ``deepspeed train.py --model NAME --data FILE``. A stub: the gate never runs it."""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="one text a line")
    parser.add_argument("--local_rank", type=int, default=-1)
    options = parser.parse_args()

    import deepspeed
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model)
    engine, _, _, _ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config="ds_config.json")
    with open(options.data, encoding="utf-8") as lines:
        for line in lines:
            batch = tokenizer(line, return_tensors="pt").to(engine.device)
            engine.backward(engine(**batch, labels=batch["input_ids"]).loss)
            engine.step()


if __name__ == "__main__":
    main()
