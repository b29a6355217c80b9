"""What people say of answers and rows: tasks, judgements, the desk where they are made, and statistics of them."""
