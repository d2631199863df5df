"""Arrays of each framework: one small file each, the same few functions in each.

``owns(x)``          x is an array of this framework
``pointer(x)``       its elements as a Buffer: where they lie, else (not contiguous) one copy
``like(x, shape)``   a new array of the same kind, dtype and device
``ordered(x, stream)``   the work that makes x is done, or a TypeError: no such stream
"""
