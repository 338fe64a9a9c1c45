"""PEFT: https://github.com/huggingface/peft"""
