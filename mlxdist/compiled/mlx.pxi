# The core's side for MLX, see mlx_libmpi.h; a part of _core.pyx.

def override_next_mlx_split(Group group, int kind, int root) -> None:
    """MLX's next split on this thread returns ``group``, see mlx_libmpi.h."""
    mlx_override_next_split(group.handle, <mlx_collective_kind>kind, root)


def behind_mlx(part):
    """The group behind one of MLX's, whose ``split`` is ``part``; None if it does not run on this module."""
    mlx_query_next_split()
    try:
        part(0)
    except RuntimeError:
        pass
    cdef c_group *handle = mlx_queried_group()
    if handle == NULL:
        return None
    return the_world if handle == the_world.handle else wrap(type(the_world), group_retain(handle))


def mlx_opened_us() -> bool:
    """Whether MLX has opened this module as its libmpi."""
    return <bint>mlx_has_opened_us()
