"""Measures of videos: what is seen in them, and how sure one can be of it.

Networks here are trained on rendered clips alone, never on generated ones.
"""
