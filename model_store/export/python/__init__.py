"""Models as Python: one file that needs NumPy alone, and the .npz with its arrays.

`layers`, `columns` and `outputs` are what an exported file is made of: it holds the source of those functions that its
model needs, and of what they use in the rest of this package.
"""
