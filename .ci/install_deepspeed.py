"""Install one DeepSpeed release into this environment: after torch, without build isolation, no operators built.

python .ci/install_deepspeed.py [0.18.9 | known-0.18.9 | (nothing: the newest)]
"""

import os
import re
import subprocess
import sys

found = re.search(r"\d+(\.\d+)+", sys.argv[1]) if len(sys.argv) > 1 else None
package = f"deepspeed=={found[0]}" if found else "deepspeed"
command = [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation", package]
sys.exit(subprocess.run(command, env=dict(os.environ, DS_BUILD_OPS="0", DS_ACCELERATOR="cpu"), check=False).returncode)
