"""Supervised fine-tuning on chat rows: of all weights (sft), of LoRA adapters (lora), of LoRA adapters on a 4-bit
model (qlora).
"""
