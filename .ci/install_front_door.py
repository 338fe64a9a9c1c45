"""Install OpenRLHF or LLaMA-Factory and one DeepSpeed release into this environment, as tox does.

    python .ci/install_front_door.py rlhf-0.10.2-pinned | known-rlhf-0.11.2-fixed | factory-0.9.5-pinned

Neither is installed with what it asks for: vllm, flash-attn, bitsandbytes and gradio need a GPU or are not used; tox.ini lists
what is. ``pinned`` is the DeepSpeed that the release asks for (or the newest that it allows), ``fixed`` one without known bugs
of the step.
"""

import os
import re
import subprocess
import sys

FIXED = "0.19.8"
PINNED = {
    ("openrlhf", "0.5.0"): "0.15.0",
    ("openrlhf", "0.6.4"): "0.16.5",
    ("openrlhf", "0.7.0.post1"): "0.16.5",
    ("openrlhf", "0.9.0"): "0.18.1",
    ("openrlhf", "0.10.2"): "0.18.9",
    ("openrlhf", "0.10.3"): "0.18.9",
    ("openrlhf", "0.10.4"): "0.19.1",
    ("openrlhf", "0.11.2"): "0.19.6",
    ("llamafactory", "0.9.2"): "0.16.4",
    ("llamafactory", "0.9.3"): "0.16.9",
    ("llamafactory", "0.9.4"): "0.16.9",
    ("llamafactory", "0.9.5"): "0.16.9",
}

asked = re.search(r"(rlhf|factory)-([0-9.]+(?:\.post\d+)?)-(pinned|fixed)$", sys.argv[1]) if len(sys.argv) > 1 else None
name = {"rlhf": "openrlhf", "factory": "llamafactory"}[asked[1]] if asked else ""
if not asked or (name, asked[2]) not in PINNED:
    known = ", ".join(f"{name} {version}" for name, version in PINNED)
    sys.exit(f"{sys.argv[0]}: which one? rlhf-VERSION-pinned, rlhf-VERSION-fixed, factory-VERSION-...; known: {known}")
deepspeed = PINNED[name, asked[2]] if asked[3] == "pinned" else FIXED
environment = dict(os.environ, DS_BUILD_OPS="0", DS_ACCELERATOR="cpu")
for arguments in (["--no-build-isolation", f"deepspeed=={deepspeed}"], ["--no-deps", f"{name}=={asked[2]}"]):
    code = subprocess.run([sys.executable, "-m", "pip", "install", "-q", *arguments], env=environment, check=False).returncode
    if code:
        sys.exit(code)
