"""The rank stage: people order answers, and their judgements become preference data and a report."""
