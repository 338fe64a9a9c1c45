"""transformers: https://github.com/huggingface/transformers"""
