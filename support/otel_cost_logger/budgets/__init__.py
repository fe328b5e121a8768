"""Budgets that hold: what a tenant or a key may spend in a day or a month, asked before a call is dispatched."""
