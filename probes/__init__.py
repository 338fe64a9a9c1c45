"""The questions: one module per family of invariants. Run them with ``pytest probes/`` or
``pytest --pyargs truestep.probes``."""
