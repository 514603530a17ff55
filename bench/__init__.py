"""Benches: each measures one promise of the README beside a floor in the same run. Never installed."""
