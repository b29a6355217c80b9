"""ftcli: from raw text to a fine-tuned, aligned, measured language model, in one run directory."""

__version__ = "0.1.0"
