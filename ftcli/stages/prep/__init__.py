"""prep: from raw rows to clean, deduplicated rows split into train, validation and test."""
