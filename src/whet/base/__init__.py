"""Errors, quantities, records and seeds: what every layer may use. Imports nothing of whet."""
