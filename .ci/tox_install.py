"""pip for tox's environments: the one torch of all of them is installed once, beside them, and found through a .pth file.

    python .ci/tox_install.py SHARED OPTIONS PACKAGES

A CPU build of torch takes 750 MB and half a minute in every environment of its own.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

shared, arguments = Path(sys.argv[1]), sys.argv[2:]


def pip(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pip", "install", *arguments], check=False).returncode


for torch in (a for a in arguments if a.startswith("torch==")):
    home = shared / f"{torch.replace('==', '-')}-{sys.implementation.cache_tag}"
    if not home.is_dir():
        shared.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=shared) as fresh:  # renamed when whole: a run that dies leaves no half of it
            if code := pip("--target", f"{fresh}/new", torch):
                sys.exit(code)
            try:
                os.rename(f"{fresh}/new", home)
            except OSError:
                if not home.is_dir():  # else another run was first
                    raise
    Path(sysconfig.get_path("purelib"), "shared_torch.pth").write_text(f"{home}\n")
sys.exit(pip(*arguments))
