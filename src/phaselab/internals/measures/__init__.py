"""Measures of hidden states, a file each or several that share parts."""
