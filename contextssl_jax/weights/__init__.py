"""Weights as named tensors: files, the official code's names, and saved models."""
