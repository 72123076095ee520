"""Where engines live: this interpreter, or managed environments made by `smmf engines install`."""
