"""Figures for people: drawn from numbers and images alone, whoever made them."""
