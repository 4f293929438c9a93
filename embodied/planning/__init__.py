"""Operators learnt by counting executions, and the search for plans over them."""
