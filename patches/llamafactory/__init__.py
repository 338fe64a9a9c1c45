"""LLaMA-Factory: https://github.com/hiyouga/LLaMA-Factory"""
