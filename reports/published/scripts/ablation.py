"""OpenRLHF's SFT under DeepSpeed's CPU offload, with both bugs of arXiv 2604.23747, with either repaired, and with both.

One optimizer step of ``openrlhf.cli.train_sft``, eight samples, one in each micro-batch. Run it where OpenRLHF is older than 0.10.4
and DeepSpeed older than 0.19 (tox -e rlhf-0.10.2 makes such an environment):

    python reports/published/scripts/ablation.py [FIGURE.svg]

Prints the table of ABLATION.md; draws the figure where matplotlib is installed. Exit code: 0 as the paper says, 1 not so.
"""

import sys

from truestep.fixtures.cell import parse
from truestep.suite import Suite

CELL = "openrlhf-llama.lm-W1-K8b1-objective:response_mean-batch:prompted-offload_optimizer:cpu"
LOSS, OPTIMIZER = "openrlhf-1249", "deepspeed-7967"
ROWS = {
    "as released": (),
    "loss repaired": (LOSS,),
    "optimizer repaired": (OPTIMIZER,),
    "both repaired": (LOSS, OPTIMIZER),
}


def weighed(patches: tuple[str, ...]):
    """The verdict of the cell with those patches, weights of the samples included."""
    suite = Suite(patch=patches, detail=True, weigh=True)
    try:
        suite.submit([parse(CELL)])
        return suite.verdict(parse(CELL))
    finally:
        suite.close()


def draw(rows: dict[str, list[float]], path: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "truestep", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(rows), 1, figsize=(6.4, 6.2), sharex=True, sharey=True, layout="constrained")
    top = max(1.0, *(w for weights in rows.values() for w in weights))
    for axis, (name, weights) in zip(axes, rows.items(), strict=True):
        right = all(abs(w - 1) < 1e-3 for w in weights)
        bars = axis.bar(range(1, len(weights) + 1), weights, color="#2a7f4f" if right else "#b5473c", width=0.65)
        axis.bar_label(bars, [f"{w:.2f}" if w else "0" for w in weights], padding=2, fontsize=8)
        axis.axhline(1, color="#444444", linewidth=0.8, linestyle="--")
        axis.set_title(name, loc="left", fontsize=10)
        axis.set_ylim(0, top * 1.22)
    axes[-1].set_xlabel("sample (each is a micro-batch of its own)")
    figure.supylabel("effective weight in the step; 1 is right")
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    found, right = {}, True
    print("| | off by | effective weights of the eight samples, 1 is right | what was done |\n|---|---|---|---|")
    for name, patches in ROWS.items():
        verdict = weighed(patches)
        gradient = next((c for c in verdict.checks if c.name == "gradient"), None)
        if gradient is None or verdict.diagnosis is None:
            print(f"{name}: {verdict.verdict}: {verdict.reason}", file=sys.stderr)
            return 1
        found[name] = [round(w, 4) + 0.0 for w in verdict.diagnosis.samples]
        right &= (verdict.verdict == "pass") == (len(patches) == 2)
        print(f"| {name} | {gradient.figure:.2g} | {' '.join(f'{w:.3g}' for w in found[name])} | {verdict.diagnosis.words} |")
        versions = verdict.versions
    print("\n" + " · ".join(f"{name} {version}" for name, version in versions.items() if name != "platform"))
    if len(sys.argv) > 1:
        draw(found, sys.argv[1])
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
