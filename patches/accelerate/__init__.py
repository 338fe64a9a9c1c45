"""accelerate: https://github.com/huggingface/accelerate"""
