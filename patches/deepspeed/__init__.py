"""DeepSpeed: https://github.com/deepspeedai/DeepSpeed"""
