"""The command line: train, predict, certify, bench, experiment."""
