"""The review stage: people accept, edit or reject rows before anything is trained on them."""
