"""Generated from `proto/arbitrage/v1/arbitrage.proto` by `make proto`; never edited."""
