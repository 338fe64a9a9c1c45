"""DeepSpeed's historical bugs as seeded faults: ``faults_of(*MODULES)`` lists them."""

from __future__ import annotations

MODULES: tuple[str, ...] = tuple(
    f"{__name__}.{name}"
    for name in (
        "ds_5150",
        "ds_6550",
        "ds_7718",
        "ds_7786",
        "ds_7839",
        "ds_7967",
        "ds_7981",
        "ds_7985",
        "ds_8382",
        "bf16_grad_reading",
        "offload_unreduced",
    )
)
ADVISORY: tuple[()] = ()  # the catalogue looks for one in everything beside the advisories; here there is none
