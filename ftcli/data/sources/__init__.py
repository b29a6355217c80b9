"""Where raw rows come from: one file per kind of source, each a generator of `Record` and `Reject` (`ftcli.data.records`)."""
