"""Arrays of each framework: one small file each, the same few functions in each.

``owns(x)``                x is an array of this framework
``pointer(x)``             its elements as a Buffer: where they lie, else (not contiguous, not aligned) one copy
``like(x, shape)``         a new array of the same kind, dtype and device
``ordered(call, stream)``  the work that makes x is done, or a TypeError: no such stream

``numpy`` can also adopt what is no array, check a dtype and make arrays of NumPy's dtypes.
"""
