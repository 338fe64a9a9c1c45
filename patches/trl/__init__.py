"""TRL: https://github.com/huggingface/trl"""
