"""Prices that an operator states: the price book, what a price makes of a call's tokens, and prices from a GPU-hour."""
